#include "cartpole/adaptive_expert.h"

#include <algorithm>
#include <cmath>

template <size_t N>
LeastSquares<N>::LeastSquares(const std::array<double, N>& guess,
                              const std::array<double, N>& deviation, double noise)
    : w_(guess), noise_variance_(noise * noise) {
  for (size_t k = 0; k < N; ++k) covariance_[k][k] = deviation[k] * deviation[k];
}

template <size_t N>
double LeastSquares<N>::add(const std::array<double, N>& phi, double y) {
  std::array<double, N> gain{};
  double error = y, variance = noise_variance_;
  for (size_t i = 0; i < N; ++i) {
    for (size_t j = 0; j < N; ++j) gain[i] += covariance_[i][j] * phi[j];
    error -= w_[i] * phi[i];
    variance += phi[i] * gain[i];
  }
  for (size_t i = 0; i < N; ++i) {
    w_[i] += gain[i] / variance * error;
    for (size_t j = 0; j < N; ++j) covariance_[i][j] -= gain[i] * gain[j] / variance;
  }
  return error * error / variance;
}

namespace {
CartPoleParameters slowest(CartPoleParameters plant, size_t delay) {
  plant.delay_steps = std::max(plant.delay_steps, static_cast<double>(delay));
  return plant;
}
}  // namespace

AdaptiveExpert::AdaptiveExpert(const CartPoleParameters& nominal, size_t n,
                               const PlantConstants& constants, const ExpertLaw& law,
                               bool rejects_kicks)
    : constants_(constants),
      rejects_kicks_(rejects_kicks),
      nominal_(nominal),
      beliefs_(n, nominal),
      undisturbed_(n, 0),
      expert_(std::vector(n, slowest(nominal, kLongestDelay)), constants, law) {
  expert_.believe(beliefs_);
  // Tuned on the validation split: LOG.md, "Reference controllers".
  const double mass = nominal.cart_mass + nominal.pole_mass,
               mass_length = nominal.pole_mass * nominal.half_length,
               length = nominal.pole_inertia() / mass_length;
  const double impulse = constants.force_limit * constants.period;  // of a period at full force
  const CartFit cart{
      {{mass, mass_length, nominal.cart_friction}, {mass, 4.0 * mass_length, 2.0 * mass}, impulse}};
  cart_.assign(n, {cart, cart, cart, cart});
  pole_.assign(n, {{length, nominal.pole_friction / mass_length},
                   {length, 0.2},
                   constants.gravity * constants.period});
}

void AdaptiveExpert::act(const StateBatch& measured, const std::vector<double>& sent,
                         std::vector<double>& force, std::vector<uint8_t>& mode) {
  const size_t n = beliefs_.size();
  const double h = constants_.period;
  Sums now{std::vector<double>(n), std::vector<double>(n), std::vector<double>(n), measured};
  if (!past_.empty()) {
    const Sums& before = past_.back();
    const StateBatch& last = before.measured;
    for (size_t i = 0; i < n; ++i) {
      const auto coupling = [&](const StateBatch& s) {
        return s.x_dot[i] * s.theta_dot[i] * s.sine[i];
      };
      const bool kicked = std::abs(measured.theta_dot[i] - last.theta_dot[i]) > kKick;
      undisturbed_[i] = kicked ? 0 : undisturbed_[i] + 1;
      now.command[i] = before.command[i] + h * sent[i];
      now.sine[i] = before.sine[i] + 0.5 * h * (last.sine[i] + measured.sine[i]);
      now.coupling[i] = before.coupling[i] + 0.5 * h * (coupling(last) + coupling(measured));
    }
  }
  past_.push_back(std::move(now));
  if (past_.size() > kWindow + kLongestDelay + 1) past_.erase(past_.begin());
  if (past_.size() == kWindow + kLongestDelay + 1)
    for (size_t i = 0; i < n; ++i)
      if (!rejects_kicks_ || undisturbed_[i] >= kWindow + kLongestDelay) identify(i);
  if (++period_ % kUpdateEvery == 0) expert_.believe(beliefs_);
  expert_.act(measured, sent, force, mode);
}

void AdaptiveExpert::identify(size_t i) {
  const size_t last = past_.size() - 1;
  const Sums &begin = past_[last - kWindow], &end = past_[last];
  const StateBatch &a = begin.measured, &b = end.measured;
  const auto change = [&](auto value) { return value(b) - value(a); };
  const double x_dot = change([&](const StateBatch& s) { return s.x_dot[i]; });
  const double theta_dot = change([&](const StateBatch& s) { return s.theta_dot[i]; });
  const std::array<double, 3> motion{
      x_dot, change([&](const StateBatch& s) { return s.theta_dot[i] * s.cosine[i]; }),
      change([&](const StateBatch& s) { return s.x[i]; })};
  size_t delay = 0;
  for (size_t d = 0; d <= kLongestDelay; ++d) {
    CartFit& fit = cart_[i][d];
    fit.error +=
        fit.squares.add(motion, past_[last - d].command[i] - past_[last - d - kWindow].command[i]);
    if (fit.error < cart_[i][delay].error) delay = d;
  }
  pole_[i].add({theta_dot, change([&](const StateBatch& s) { return s.theta[i]; })},
               constants_.gravity * (end.sine[i] - begin.sine[i]) -
                   change([&](const StateBatch& s) { return s.x_dot[i] * s.cosine[i]; }) -
                   (end.coupling[i] - begin.coupling[i]));

  const auto within = [](double value, double center, double factor) {
    return std::clamp(value, center / factor, center * factor);
  };
  const auto& [mass, mass_length, cart_friction] = cart_[i][delay].squares.estimate();
  const auto& [length, pole_friction] = pole_[i].estimate();
  CartPoleParameters& belief = beliefs_[i];
  belief.delay_steps = static_cast<double>(delay);
  belief.half_length = within(length / belief.inertia_factor, nominal_.half_length, 4.0);
  belief.pole_mass = within(mass_length / belief.half_length, nominal_.pole_mass, 10.0);
  belief.cart_mass = within(mass - belief.pole_mass, nominal_.cart_mass, 5.0);
  belief.cart_friction = std::clamp(cart_friction, 0.0, 0.5 * belief.cart_mass / constants_.period);
  belief.pole_friction =
      std::clamp(pole_friction, 0.0, 2.0) * belief.pole_mass * belief.half_length;
}

template class LeastSquares<2>;
template class LeastSquares<3>;
