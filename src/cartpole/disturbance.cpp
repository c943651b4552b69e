#include "cartpole/disturbance.h"

#include <algorithm>

namespace {

std::vector<CounterRandom> streams_of(const std::vector<Disturbance>& disturbances,
                                      CounterRandom Disturbance::*stream) {
  std::vector<CounterRandom> streams;
  for (const auto& disturbance : disturbances) streams.push_back(disturbance.*stream);
  return streams;
}

std::vector<size_t> delays_of(const std::vector<CartPoleParameters>& plants) {
  std::vector<size_t> steps;
  for (const auto& plant : plants) steps.push_back(static_cast<size_t>(plant.delay_steps));
  return steps;
}

size_t longest_of(const std::vector<size_t>& steps) {
  return steps.empty() ? 0 : *std::max_element(steps.begin(), steps.end());
}

}  // namespace

NormalStreams::NormalStreams(const std::vector<CounterRandom>& random) {
  for (const auto& stream : random) {
    for (size_t k = 0; k < 4; ++k) counter_[k].push_back(stream.counter()[k]);
    for (size_t k = 0; k < 2; ++k) key_[k].push_back(stream.key()[k]);
  }
  for (auto& normal : normal_) normal.resize(random.size());
}

void NormalStreams::draw() {
  control_kernel()->draw(
      normal_[0].size(),
      {counter_[0].data(),
       {counter_[1].data(), counter_[2].data(), counter_[3].data()},
       {key_[0].data(), key_[1].data()},
       {normal_[0].data(), normal_[1].data(), normal_[2].data(), normal_[3].data()}});
}

DisturbanceBatch::DisturbanceBatch(const std::vector<Disturbance>& disturbances,
                                   const PlantConstants& constants)
    : force_limit_(constants.force_limit), noise_(streams_of(disturbances, &Disturbance::random)) {
  for (const auto& d : disturbances) {
    force_gain_.push_back(d.force_gain);
    force_noise_.push_back(d.force_noise);
    excitation_steps_.push_back(d.excitation_steps);
    kick_step_.push_back(d.kick_step);
    kick_.push_back(d.kick);
  }
}

void DisturbanceBatch::disturb(uint32_t t, std::vector<double>& force) {
  if (t % 4 == 0) noise_.draw();
  control_kernel()->disturb(size(), t, arrays(), noise_.number(t % 4), force.data());
}

void DisturbanceBatch::kick(uint32_t t, StateBatch& states) const {
  control_kernel()->kick(size(), t, arrays(), states.arrays());
}

DisturbanceArrays DisturbanceBatch::arrays() const {
  return {force_gain_.data(), force_noise_.data(), excitation_steps_.data(),
          kick_step_.data(),  kick_.data(),        force_limit_};
}

Sensors::Sensors(const SensorNoise& noise, const std::vector<Disturbance>& disturbances)
    : noise_(noise), streams_(streams_of(disturbances, &Disturbance::sensor_random)) {}

const StateBatch& Sensors::read(const StateBatch& states) {
  streams_.draw();
  measured_ = states;
  std::vector<double>* const coordinates[] = {&measured_.x, &measured_.x_dot, &measured_.theta,
                                              &measured_.theta_dot};
  for (size_t k = 0; k < kStateSize; ++k)
    for (size_t i = 0; i < states.size(); ++i)
      (*coordinates[k])[i] += noise_[k] * streams_.number(k)[i];
  control_kernel()->sines(measured_.size(), measured_.arrays());
  return measured_;
}

Delay::Delay(const std::vector<CartPoleParameters>& plants)
    : steps_(delays_of(plants)),
      longest_(longest_of(steps_)),
      past_(longest_ + 1, std::vector<double>(plants.size(), 0.0)) {}

void Delay::apply(uint32_t t, std::vector<double>& force) {
  if (longest_ == 0) return;
  past_[t % past_.size()] = force;
  for (size_t i = 0; i < force.size(); ++i)
    force[i] = past_[(t + past_.size() - steps_[i]) % past_.size()][i];
}

DelayPrediction::DelayPrediction(const std::vector<CartPoleParameters>& plants,
                                 const PlantConstants& constants)
    : constants_(constants),
      plants_(plants, constants),
      steps_(delays_of(plants)),
      longest_(longest_of(steps_)),
      sent_(longest_, std::vector<double>(plants.size(), 0.0)) {}

void DelayPrediction::believe(const std::vector<CartPoleParameters>& plants) {
  plants_ = CartPoleBatch(plants, constants_);
  steps_ = delays_of(plants);
}

const StateBatch& DelayPrediction::predict(const StateBatch& states,
                                           const std::vector<double>& sent) {
  if (longest_ == 0) return states;
  std::rotate(sent_.begin(), sent_.end() - 1, sent_.end());
  sent_.front() = sent;
  predicted_ = states;
  for (size_t ago = longest_; ago > 0; --ago) {  // what was sent so long ago moves plants next
    StateBatch next = predicted_;
    plants_.step(sent_[ago - 1], next);
    for (auto coordinate : {&StateBatch::x, &StateBatch::x_dot, &StateBatch::theta,
                            &StateBatch::theta_dot, &StateBatch::sine, &StateBatch::cosine})
      for (size_t i = 0; i < steps_.size(); ++i)
        if (steps_[i] >= ago) (predicted_.*coordinate)[i] = (next.*coordinate)[i];
  }
  return predicted_;
}
