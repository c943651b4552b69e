#include "controller/control_loop.h"

#include <gtest/gtest.h>
#include <malloc.h>

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "controller/latency_histogram.h"

namespace {

using std::chrono::milliseconds;
using Time = ControlLoop::Time;

// Answers 10 x, balances right of the middle, and predicts that x grows by 1.
class FakePolicy : public PeriodPolicy {
 public:
  bool step(const std::array<double, 4>& state, double sent,
            cartpole_policy_action& action) override {
    if (refuses) return false;
    seen.emplace_back(state[0], sent);
    action.force = 10 * state[0];
    action.mode = state[0] > 0;
    action.next_state[0] = state[0] + 1;
    return true;
  }
  void reset() override {
    ++resets;
    seen.clear();
  }

  std::vector<std::pair<double, double>> seen;  // x and sent, since the last reset
  int resets = 0;
  bool refuses = false;
};

Measurement at_x(double x) { return {{x, 0, 0, 0}, std::nullopt}; }

std::string text(const std::optional<Answer>& answer) {
  if (!answer) return "none";
  std::string line(format_answer(*answer).view());
  line.pop_back();
  return line;
}

class Loop : public testing::Test {
 protected:
  // Milliseconds since the first moment.
  Time at(double ms) const {
    return Time(std::chrono::hours(5)) +
           std::chrono::nanoseconds(static_cast<int64_t>(std::lround(1e6 * ms)));
  }
  std::string receive(double x, double ms) { return text(loop.receive(at_x(x), at(ms))); }
  std::string expire(double ms) { return text(loop.expire(at(ms))); }
  double deadline() const {
    return std::chrono::duration<double, std::milli>(*loop.deadline() - at(0)).count();
  }

  FakePolicy policy;
  ControlLoop loop{policy, milliseconds(20), milliseconds(10)};
};

}  // namespace

TEST_F(Loop, StatesInTimeAreAnsweredByThePolicyAtOnce) {
  EXPECT_FALSE(loop.deadline());
  EXPECT_EQ(expire(1000), "none");  // nothing is due before the first state
  EXPECT_EQ(receive(0.1, 0), "1 1 policy");
  EXPECT_DOUBLE_EQ(deadline(), 30);
  EXPECT_EQ(expire(29.9), "none");
  EXPECT_EQ(receive(-0.2, 20), "-2 0 policy");
  EXPECT_EQ(receive(0.3, 49.9), "3 1 policy");  // as late as it may be
  EXPECT_EQ(loop.counts().missing, 0);
  // What was answered counts as sent, unless the plant says something else.
  EXPECT_EQ(policy.seen, (std::vector<std::pair<double, double>>{{0.1, 0}, {-0.2, 1}, {0.3, -2}}));
  loop.receive({{0.4, 0, 0, 0}, 7.5}, at(60));
  EXPECT_EQ(policy.seen.back().second, 7.5);
}

TEST_F(Loop, AMissingStateIsAnsweredByHoldThenByPredictionsThenByZero) {
  EXPECT_EQ(receive(1, 0), "10 1 policy");
  std::string answers;
  for (int period = 1; period <= 8; ++period) {
    EXPECT_DOUBLE_EQ(deadline(), 20 * period + 10);
    EXPECT_EQ(expire(20 * period + 9.9), "none");
    answers += expire(20 * period + 10) + "\n";
  }
  EXPECT_EQ(answers,
            "10 1 hold\n30 1 predict\n40 1 predict\n50 1 predict\n60 1 predict\n70 1 predict\n"
            "0 0 zero\n0 0 zero\n");
  // The held period has its token too, and the forces are those that were sent.
  const std::vector<std::pair<double, double>> tokens{{1, 0},  {2, 10}, {3, 10}, {4, 30},
                                                      {5, 40}, {6, 50}, {7, 60}};
  EXPECT_EQ(policy.seen, tokens);
  EXPECT_EQ(loop.counts().missing, 8);
  EXPECT_EQ(loop.counts().answers, (std::array<int64_t, 4>{1, 1, 5, 2}));
}

TEST_F(Loop, AShortGapKeepsTheContext) {
  receive(1, 0);
  expire(30);
  expire(50);
  EXPECT_EQ(receive(4, 60), "40 1 policy");
  EXPECT_EQ(policy.resets, 0);
  EXPECT_EQ(policy.seen.size(), 4u);  // a token per period
  EXPECT_EQ(loop.counts().interruptions, 0);
  EXPECT_EQ(expire(90), "40 1 hold");  // the next gap begins anew
}

TEST_F(Loop, ALongGapInterruptsTheContextAndTheSchedule) {
  receive(1, 0);
  for (int period = 1; period <= 7; ++period) expire(20 * period + 10);
  EXPECT_EQ(receive(0.5, 151), "5 1 policy");  // whenever it comes
  EXPECT_EQ(policy.resets, 1);
  EXPECT_EQ(policy.seen, (std::vector<std::pair<double, double>>{{0.5, 0}}));
  EXPECT_EQ(loop.counts().interruptions, 1);
  EXPECT_DOUBLE_EQ(deadline(), 181);
}

TEST_F(Loop, ASecondStateOfAPeriodIsNotUsed) {
  receive(1, 0);
  EXPECT_EQ(receive(2, 1), "none");
  EXPECT_EQ(receive(3, 9.9), "none");
  EXPECT_EQ(receive(4, 10.1), "40 1 policy");  // an early one of the next period
  EXPECT_EQ(loop.counts().unused, 2);
  EXPECT_EQ(policy.seen.size(), 2u);
}

TEST_F(Loop, AStateAfterItsDeadlineDoesNotAddAToken) {
  receive(1, 0);
  EXPECT_EQ(expire(30), "10 1 hold");
  EXPECT_EQ(receive(2, 32), "20 1 policy");  // stands for the period that has begun,
  EXPECT_EQ(receive(3, 40), "none");         // whose own state finds it answered
  EXPECT_EQ(receive(4, 60), "40 1 policy");
  EXPECT_EQ(policy.seen.size(), 4u);
}

TEST_F(Loop, TheScheduleFollowsThePlantsClock) {
  double ms = 0;
  for (int period = 0; period < 500; ++period, ms += 21.2)  // 6% slow
    EXPECT_EQ(receive(1, ms), "10 1 policy") << period;
  for (int period = 0; period < 500; ++period, ms += 18.8) EXPECT_NE(receive(1, ms), "none");
  EXPECT_EQ(loop.counts().unused, 0);
  EXPECT_EQ(loop.counts().missing, 0);
  EXPECT_NEAR(loop.jitter().standard_deviation(), 1.2e-3, 1e-5);
  EXPECT_NEAR(loop.jitter().worst(), 1.2e-3, 1e-6);
}

TEST_F(Loop, JitterDoesNotCostAPeriod) {
  for (int period = 0; period < 1000; ++period)  // up to 8 ms late
    EXPECT_EQ(receive(1, 20 * period + period * 37 % 9), "10 1 policy") << period;
}

TEST_F(Loop, APlantOfTwiceTheRateStillGivesATokenPerPeriod) {
  for (int state = 0; state < 2000; ++state) {
    if (loop.deadline() && at(10 * state) >= *loop.deadline()) expire(10 * state);
    receive(1, 10 * state);
  }
  EXPECT_NEAR(static_cast<double>(policy.seen.size()), 1000, 50);
}

// As after a pause of the whole machine.
TEST_F(Loop, PeriodsThatPassUnnoticedAreFilledWithPredictions) {
  receive(1, 0);
  EXPECT_EQ(receive(4.5, 65), "45 1 policy");
  EXPECT_EQ(policy.seen,
            (std::vector<std::pair<double, double>>{{1, 0}, {2, 10}, {3, 10}, {4.5, 30}}));
  EXPECT_EQ(loop.counts().missing, 2);
  EXPECT_EQ(expire(20000), "0 0 zero");
  EXPECT_EQ(receive(1, 20001), "10 1 policy");
  EXPECT_EQ(loop.counts().interruptions, 1);
}

TEST_F(Loop, ByTheClockOfTheInputEveryLineIsAPeriod) {
  EXPECT_EQ(text(loop.answer_without()), "0 0 zero");  // nothing is known yet
  EXPECT_EQ(text(loop.answer(at_x(1))), "10 1 policy");
  EXPECT_EQ(text(loop.answer_without()), "10 1 hold");
  EXPECT_EQ(text(loop.answer_without()), "30 1 predict");
  EXPECT_EQ(text(loop.answer(at_x(-1))), "-10 0 policy");
  for (int line = 0; line < 6; ++line) loop.answer_without();
  EXPECT_EQ(text(loop.answer_without()), "0 0 zero");
  EXPECT_EQ(text(loop.answer(at_x(1))), "10 1 policy");
  EXPECT_EQ(policy.resets, 1);
  EXPECT_EQ(loop.counts().interruptions, 1);
  EXPECT_EQ(loop.counts().missing, 0);
}

TEST_F(Loop, GarbageBeforeTheFirstStateInterruptsNothing) {
  for (int line = 0; line < 20; ++line) EXPECT_EQ(text(loop.answer_without()), "0 0 zero");
  EXPECT_EQ(text(loop.answer(at_x(1))), "10 1 policy");
  EXPECT_EQ(loop.counts().interruptions, 0);
}

TEST_F(Loop, WhatThePolicyRefusesIsAnsweredByZeroAndEndsTheContext) {
  receive(1, 0);
  policy.refuses = true;
  EXPECT_EQ(receive(1, 20), "0 0 zero");
  EXPECT_EQ(expire(50), "0 0 zero");
  policy.refuses = false;
  EXPECT_EQ(receive(1, 60), "10 1 policy");
  EXPECT_EQ(policy.resets, 1);
  EXPECT_EQ(loop.counts().failures, 1);
  EXPECT_EQ(loop.counts().interruptions, 1);
  policy.refuses = true;  // a prediction
  EXPECT_EQ(expire(90), "0 0 zero");
}

TEST_F(Loop, TheNextPlantBeginsAnew) {
  receive(1, 0);
  expire(30);
  loop.end_trial();
  EXPECT_FALSE(loop.deadline());
  EXPECT_EQ(policy.resets, 1);
  EXPECT_EQ(receive(2, 33), "20 1 policy");
  EXPECT_EQ(policy.seen, (std::vector<std::pair<double, double>>{{2, 0}}));
  EXPECT_EQ(loop.counts().interruptions, 0);
}

TEST_F(Loop, NothingIsAllocatedWhileItRuns) {
  LatencyHistogram latency;
  policy.seen.reserve(20000);
  const auto before = mallinfo2().uordblks;
  for (int period = 0; period < 10000; ++period) {
    const auto line = parse_state_line("0.5 -0.25\t1e-3 +2", limits_of(2.4, 10));
    if (period % 7)
      loop.receive(line.measurement, at(20 * period));
    else
      loop.expire(at(20 * period + 10));
    latency.add(milliseconds(period));
    format_answer({1.0 / 3.0, 1, AnswerKind::kPredict});
  }
  EXPECT_EQ(mallinfo2().uordblks, before);
}

TEST(StateLine, TakesFourOrFiveNumbers) {
  const auto limits = limits_of(2.4, 10);
  const auto four = parse_state_line(" 0.5  -1e-1\t+3 -2.5e0 ", limits);
  EXPECT_EQ(four.fault, LineFault::kNone);
  EXPECT_EQ(four.measurement.state, (std::array<double, 4>{0.5, -0.1, 3, -2.5}));
  EXPECT_FALSE(four.measurement.sent);
  EXPECT_EQ(parse_state_line("0 0 0 0 -7", limits).measurement.sent, -7.0);
}

TEST(StateLine, NamesWhatIsWrong) {
  const auto limits = limits_of(2.4, 10);
  const auto fault = [&](std::string_view line) { return parse_state_line(line, limits).fault; };
  using std::string_view_literals::operator""sv;
  for (const auto line :
       {""sv, " "sv, "0 0 0"sv, "0 0 0 0 0 0"sv, "0 0 0 x"sv, "0 0 0 1x"sv, "0 0 0 0x1"sv,
        "0,0,0,0"sv, "0 0 0 \0"sv, "- 0 0 0"sv, "+-1 0 0 0"sv, "0 0 0 1e"sv, "\xff 0 0 0"sv})
    EXPECT_EQ(fault(line), LineFault::kMalformed) << line;
  for (const auto line : {"nan 0 0 0"sv, "0 -inf 0 0"sv, "0 0 1e999 0"sv, "0 0 0 0 nan"sv})
    EXPECT_EQ(fault(line), LineFault::kNonFinite) << line;
  for (const auto line : {"3.7 0 0 0"sv, "-3.7 0 0 0"sv, "0 101 0 0"sv, "0 0 -2e6 0"sv,
                          "0 0 0 -1001"sv, "0 0 0 0 16"sv})
    EXPECT_EQ(fault(line), LineFault::kImpossible) << line;
  for (const auto line : {"3.59 0 0 0"sv, "0 -100 0 0"sv, "0 0 0 1000"sv, "0 0 0 0 -15"sv})
    EXPECT_EQ(fault(line), LineFault::kNone) << line;
}

TEST(StateLine, AnswersComeBack) {
  const Answer answer{-3.25, 1, AnswerKind::kPredict};
  const auto line = format_answer(answer);
  EXPECT_EQ(line.view(), "-3.25 1 predict\n");
  const auto back = parse_answer("-3.25 1 predict");
  ASSERT_TRUE(back);
  EXPECT_EQ(back->force, answer.force);
  EXPECT_EQ(back->mode, answer.mode);
  EXPECT_EQ(back->kind, answer.kind);
  for (const char* wrong : {"", "1", "1 0", "1 0 perhaps", "x 0 policy", "nan 0 policy"})
    EXPECT_FALSE(parse_answer(wrong)) << wrong;
  EXPECT_LT(
      format_answer({-std::numeric_limits<double>::max(), -2147483647, AnswerKind::kPredict}).size,
      sizeof(AnswerLine::text));
}

TEST(LatencyHistogram, QuantilesHaveThreeDigits) {
  LatencyHistogram histogram;
  EXPECT_EQ(histogram.quantile(0.5).count(), 0);
  EXPECT_TRUE(histogram.rows().empty());
  for (int i = 1; i <= 100000; ++i) histogram.add(std::chrono::nanoseconds(i * 1000));
  for (const double share : {0.001, 0.1, 0.5, 0.99, 0.999}) {
    const double exact = share * 1e8;
    EXPECT_NEAR(static_cast<double>(histogram.quantile(share).count()), exact, 0.001 * exact + 1);
  }
  EXPECT_EQ(histogram.quantile(1.0), histogram.largest());
  EXPECT_EQ(histogram.largest().count(), 100'000'000);
  EXPECT_EQ(histogram.count(), 100000);
}

TEST(LatencyHistogram, TakesAnyDuration) {
  LatencyHistogram histogram;
  for (const int64_t ns : {int64_t{-5}, int64_t{0}, int64_t{1}, int64_t{2047}, int64_t{2048},
                           std::numeric_limits<int64_t>::max()})
    histogram.add(std::chrono::nanoseconds(ns));
  int64_t counted = 0;
  for (const auto& row : histogram.rows()) counted += row.count;
  EXPECT_EQ(counted, 6);
  EXPECT_NE(histogram.picture().find('#'), std::string::npos);
}
