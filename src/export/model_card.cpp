#include "export/model_card.h"

#include "export/player.h"

using nlohmann::json;
using nlohmann::ordered_json;

namespace {

std::string number(double value, const char* format = "%g") {
  char text[32];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

std::string rate(const json& closed_loop) {
  return number(closed_loop.at("success"), "%.3f") + " [" +
         number(closed_loop.at("interval")[0], "%.3f") + ", " +
         number(closed_loop.at("interval")[1], "%.3f") + "]";
}

std::string evaluation_table(const json& evaluation) {
  if (evaluation.is_null())
    return "Not evaluated: run `evaluate_policy` on the run, then `export_policy` again.\n";
  std::string text = "Success means " + evaluation.at("criterion").get<std::string>() + ", of " +
                     std::to_string(evaluation.at("steps").get<int>()) +
                     ". In brackets: Wilson's 95% intervals.\n\n| task | policy | trials | success "
                     "rate | given the expert's |\n|---|---|---|---|---|\n";
  for (const auto& [split, numbers] : evaluation.at("splits").items())
    for (const char* policy : {"model", "expert", "adaptive_expert", "nominal_expert"}) {
      const auto& c = numbers.at("closed_loop").at(policy);
      text += "| " + split + " | " + policy + " | " + std::to_string(c.at("n").get<int>()) + " | " +
              rate(c) + " | " + number(c.at("success_given_expert"), "%.3f") + " |\n";
    }
  return text;
}

std::string feature_table(const ordered_json& controller) {
  std::string text = "| input | unit | divided by |\n|---|---|---|\n";
  for (const auto& feature : controller.at("features"))
    text += "| " + feature.at("name").get<std::string>() + " | " +
            feature.at("unit").get<std::string>() + " | " + number(feature.at("scale")) + " |\n";
  return text;
}

std::string world_table(const ordered_json& controller) {
  std::string text = "| of the plants | trained on |\n|---|---|\n";
  for (const auto& [key, value] : controller.at("world").items())
    text += "| " + key + " | " + value.dump() + " |\n";
  return text;
}

}  // namespace

std::string model_card(const ordered_json& controller, const json& evaluation) {
  const auto text = [&](const char* key) { return number(controller.at(key)); };
  const auto count = [&](const char* key) {
    return std::to_string(controller.at(key).get<int64_t>());
  };
  return "---\ntags: [robotics, control, cart-pole, gpt2]\nlibrary_name: transformers\n---\n# " +
         controller.at("name").get<std::string>() +
         ": a GPT-2 that swings up and balances cart-poles\n\nA transformer of " +
         count("parameters") +
         " parameters that imitates an expert on randomly drawn cart-poles. It is told nothing "
         "about the one before it, and adapts by what it sees in its last " +
         text("window") +
         " control periods.\n\n## Inputs and outputs\n\nOne token per control period of " +
         text("period") + " s:\n\n" + feature_table(controller) +
         "\ntheta is 0 upright and positive leaning to +x. `sent_force` is the command of the "
         "period before, 0 in the first of a window.\nThe body is `GPT2Model` "
         "(`inputs_embeds = read_in(token / scales)`); heads on its last hidden state give\n\n"
         "| output | meaning |\n|---|---|\n| force_head | force / " +
         text("force_limit") +
         " N, to be limited to [-1, 1] |\n| mode_head | logits of swinging up and balancing |\n"
         "| dynamics_head | the change of [x, x_dot, theta, theta_dot] until the next period, in "
         "units of `delta_rms`: the first four numbers plus the other four times the force / "
         "limit |\n\nWhen the window is full, the newest quarter of it begins the next one.\n\n"
         "## Trained on\n\n" +
         world_table(controller) + "\nTrack +-" + text("track_limit") + " m, gravity " +
         text("gravity") + " m/s^2, step " + count("step") + " of the run.\n\n## Evaluation\n\n" +
         evaluation_table(evaluation) +
         "\n## How to play it\n\nWith `numpy`, `torch` and `transformers`, in this folder:\n\n"
         "```python\n" +
         kPlayer +
         "```\n\nIn C, without any of them: `policy.bin` and `policy_8bit.bin` are for "
         "`cartpole_policy.h`.\n\n## Limits\n\nTrained in simulation only. Outside the ranges "
         "above, and where sensors, delays or the rail are worse than trained with, it fails "
         "without a warning; keep an emergency stop.\n";
}
