#include "controller/picture.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numbers>
#include <vector>

#include "controller/latency_histogram.h"

namespace {

enum Color : uint8_t { kPlain = 0, kRed = 31, kGreen = 32, kYellow = 33, kBlue = 34, kGray = 90 };

std::string paint(Color color, const std::string& text) {
  return color == kPlain ? text : "\x1b[" + std::to_string(color) + "m" + text + "\x1b[0m";
}

template <class... Values>
std::string format(const char* pattern, Values... values) {
  char text[256];
  std::snprintf(text, sizeof text, pattern, values...);
  return text;
}

// Every cell is two dots wide and four high, about square ones: the patterns of Braille.
class Canvas {
 public:
  Canvas(int columns, int rows)
      : columns_(columns),
        rows_(rows),
        cells_(static_cast<size_t>(columns) * static_cast<size_t>(rows)) {}
  int width() const { return 2 * columns_; }
  int height() const { return 4 * rows_; }

  void dot(double x, double y, Color color) {
    const int column = static_cast<int>(std::lround(x)), row = static_cast<int>(std::lround(y));
    if (column < 0 || column >= width() || row < 0 || row >= height()) return;
    constexpr uint8_t kDots[4][2] = {{0x01, 0x08}, {0x02, 0x10}, {0x04, 0x20}, {0x40, 0x80}};
    Cell& cell = cells_[place(column / 2, row / 4)];
    cell.dots |= kDots[row % 4][column % 2];
    cell.color = color;
  }
  void box(double left, double top, double right, double bottom, Color color) {
    for (double y = top; y <= bottom; ++y)
      for (double x = left; x <= right; ++x) dot(x, y, color);
  }
  // Three dots wide.
  void stroke(double x, double y, double to_x, double to_y, Color color) {
    const double length = std::hypot(to_x - x, to_y - y);
    if (!(length > 0)) return;
    const double along_x = (to_x - x) / length, along_y = (to_y - y) / length;
    for (double s = 0; s <= length; s += 0.5)
      for (const double aside : {-1.0, 0.0, 1.0})
        dot(x + s * along_x - aside * along_y, y + s * along_y + aside * along_x, color);
  }
  std::string row(int number, bool unicode) const {
    std::string text;
    Color color = kPlain;
    for (int column = 0; column < columns_; ++column) {
      const Cell& cell = cells_[place(column, number)];
      if (cell.dots && cell.color != color)
        text += "\x1b[" + std::to_string(color = cell.color) + "m";
      text += !cell.dots ? " " : unicode ? braille(cell.dots) : "#";
    }
    return text + "\x1b[0m";
  }

 private:
  struct Cell {
    uint8_t dots = 0;
    Color color = kPlain;
  };
  size_t place(int column, int row) const {
    return static_cast<size_t>(row) * static_cast<size_t>(columns_) + static_cast<size_t>(column);
  }
  static std::string braille(uint8_t dots) {  // U+2800 and the dots, in UTF-8
    return {'\xe2', static_cast<char>(0xa0 | dots >> 6), static_cast<char>(0x80 | (dots & 0x3f))};
  }
  int columns_, rows_;
  std::vector<Cell> cells_;
};

bool balances(const Scene& scene) { return scene.answer && scene.answer->mode == 1; }

// The track fills the width, unless a pole that turns around would not fit into the height.
Canvas draw_plant(const Scene& scene, int columns, int rows) {
  Canvas canvas(columns, rows);
  const double pole = 2.0 * scene.plant.half_length, track = scene.constants.track_limit;
  const double meter = std::min(canvas.width() / (2.16 * track), canvas.height() / (2.1 * pole));
  const double middle = 0.5 * canvas.width(), axis = 0.5 * canvas.height();
  const double x = middle + meter * scene.state.x, end = meter * track;
  const double cart = std::clamp(0.05 * canvas.width(), 4.0, 9.0), floor = axis + 4;
  for (double at = middle - end; at <= middle + end; ++at) canvas.dot(at, floor, kGray);
  for (const double side : {-1.0, 1.0})
    canvas.box(middle + side * end - 1, axis - 6, middle + side * end, floor, kRed);
  canvas.box(x - cart, axis - 2, x + cart, axis + 2, kBlue);
  canvas.stroke(x, axis, x + meter * pole * std::sin(scene.state.theta),
                axis - meter * pole * std::cos(scene.state.theta),
                balances(scene) ? kGreen : kYellow);
  return canvas;
}

std::string repeat(const char* text, int count) {
  std::string result;
  for (int i = 0; i < count; ++i) result += text;
  return result;
}

// A bar from the middle, in steps of half a character.
std::string force_bar(const Scene& scene, int columns, bool unicode) {
  const int cells = std::max(4, (columns - 26) / 2);
  const double share = std::clamp(scene.force / scene.constants.force_limit, -1.0, 1.0);
  const int halves = static_cast<int>(std::lround(std::abs(share) * 2 * cells));
  const int full = halves / 2, half = unicode ? halves % 2 : 0, empty = cells - full - half;
  const char* const block = unicode ? "█" : "#";
  const std::string blank = repeat(" ", cells);
  const std::string left = repeat(" ", empty) + repeat("▐", half) + repeat(block, full);
  const std::string right = repeat(block, full) + repeat("▌", half) + repeat(" ", empty);
  return format(" force %+7.2f N ", scene.force) + "[" + paint(kBlue, (share < 0 ? left : blank)) +
         "|" + paint(kBlue, (share > 0 ? right : blank)) + "]" +
         format(" %.3g N", scene.constants.force_limit);
}

std::string plant_text(const Scene& scene, int columns) {
  const CartPoleParameters& p = scene.plant;
  std::string text =
      format(" cart %.3g kg, pole %.3g kg and %.3g m", p.cart_mass, p.pole_mass, 2 * p.half_length);
  if (p.cart_friction > 0 || p.pole_friction > 0)
    text += format(", friction %.2g and %.2g", p.cart_friction, p.pole_friction);
  if (p.motor_gain != 1.0) text += format(", motor %.2f", p.motor_gain);
  if (p.delay_steps > 0) text += format(", delay %.0f", p.delay_steps);
  const std::string remark = "; nobody tells the controller";
  return text.size() + remark.size() < static_cast<size_t>(columns) ? text + remark : text;
}

std::string state_text(const CartPoleState& state) {
  const double angle = std::remainder(state.theta, 2 * std::numbers::pi) * 180 / std::numbers::pi;
  return format(" x %+6.2f m  %+6.2f m/s     angle %+7.1f deg  %+7.2f rad/s", state.x, state.x_dot,
                angle, state.theta_dot);
}

std::string mode_text(const Scene& scene) {
  if (!scene.message.empty()) return " " + paint(kRed, scene.message);
  std::string text = paint(kRed, " no answer        ");
  if (scene.answer) {
    const char* const kind = kAnswerNames[static_cast<size_t>(scene.answer->kind)];
    text = scene.answer->kind != AnswerKind::kPolicy
               ? paint(kRed, format(" %-17s", kind))
               : paint(balances(scene) ? kGreen : kYellow,
                       format(" %-17s", balances(scene) ? "balancing" : "swinging up"));
  }
  text += format("%7.1f s", scene.time);
  if (scene.upright > 0)
    text += paint(scene.upright >= kSuccessSeconds ? kGreen : kPlain,
                  format("     upright for %.1f s", scene.upright));
  return text;
}

std::string count_text(const Scene& scene) {
  return format(" trial %d   answers missing %lld of %lld   after %s, at worst %s", scene.trial,
                static_cast<long long>(scene.missing), static_cast<long long>(scene.periods),
                duration_text(scene.usual).c_str(), duration_text(scene.worst).c_str());
}

}  // namespace

std::string draw(const Scene& scene, int columns, int rows, bool unicode) {
  constexpr int kTexts = 7;
  const int canvas_rows = std::max(1, rows - kTexts);
  const Canvas canvas = draw_plant(scene, columns, canvas_rows);
  std::vector<std::string> lines{plant_text(scene, columns), state_text(scene.state)};
  for (int row = 0; row < canvas_rows; ++row) lines.push_back(canvas.row(row, unicode));
  lines.push_back(force_bar(scene, columns, unicode));
  lines.push_back(mode_text(scene));
  lines.push_back(count_text(scene));
  lines.emplace_back();
  lines.push_back(
      paint(kGray, " a d or arrows: kick   space: any kick   r: hang   n: new plant   q: quit"));
  std::string text = "\x1b[H";
  for (int row = 0; row < std::min(rows, static_cast<int>(lines.size())); ++row)
    text += (row ? "\r\n" : "") + lines[static_cast<size_t>(row)] + "\x1b[K";
  return text;
}
