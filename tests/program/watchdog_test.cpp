#include "program/watchdog.h"

#include <gtest/gtest.h>

#include <atomic>
#include <future>

namespace {

struct Watched {
  explicit Watched(double seconds = 0.2)
      : watchdog(seconds, [this](const std::string& why) { end.set_value(why); }) {}
  std::promise<std::string> end;
  std::future<std::string> reason = end.get_future();
  Watchdog watchdog;

  bool ended_within(double seconds) {
    return reason.wait_for(std::chrono::duration<double>(seconds)) == std::future_status::ready;
  }
};

}  // namespace

TEST(Watchdog, EndsAJobThatMakesNoProgress) {
  Watched watched;
  watched.watchdog.progress("training step 7");
  ASSERT_TRUE(watched.ended_within(10));
  EXPECT_NE(watched.reason.get().find("training step 7"), std::string::npos);
}

TEST(Watchdog, LeavesAWorkingJobAlone) {
  Watched watched(1.0);
  for (int i = 0; i < 30; ++i) {
    watched.watchdog.progress("a step");
    EXPECT_FALSE(watched.ended_within(0.05));
  }
}

TEST(Watchdog, DoesNotWatchWhatHasNoDeadline) {
  Watched watched;
  EXPECT_FALSE(watched.ended_within(0.5));  // nothing began yet
  watched.watchdog.progress("a step");
  watched.watchdog.rest();
  EXPECT_FALSE(watched.ended_within(0.5));
}

TEST(Watchdog, PassesOnAnAsynchronousError) {
  Watched watched;
  const Watchdog::ErrorSource source(watched.watchdog, [] { return "the network is gone"; });
  ASSERT_TRUE(watched.ended_within(10));
  EXPECT_EQ(watched.reason.get(), "the network is gone");
}

TEST(Watchdog, LongActivitiesHaveALongerDeadline) {
  Watched watched;
  watched.watchdog.progress("validating", 15);  // three seconds
  EXPECT_FALSE(watched.ended_within(0.6));
  ASSERT_TRUE(watched.ended_within(10));
  EXPECT_NE(watched.reason.get().find("no progress for 3 s while validating"), std::string::npos);
}

TEST(Watchdog, AsksAnErrorSourceOnlyWithinItsScope) {
  Watched watched;
  std::atomic<bool> failed = false;
  {
    const Watchdog::ErrorSource source(watched.watchdog, [&] { return failed ? "late" : ""; });
    EXPECT_FALSE(watched.ended_within(0.3));
  }
  failed = true;
  EXPECT_FALSE(watched.ended_within(0.3));
}
