#include "bench/watch.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <vector>

namespace kvasir::bench {
namespace {

constexpr std::string_view kMetrics =
    "# HELP kvasir_kv_bytes {state=\"running\"} 77\n"
    "kvasir_kv_bytes{state=\"running\"} 1024\n"
    "kvasir_kv_bytes{state=\"snapshots\"} 1.5e3\n"
    "kvasir_kv_bytes_total 9\n"
    "plain 3\n"
    "plain_more 4\n"
    "vllm:usage{model_name=\"a } b\",engine=\"0\"} 0.25\n"
    "broken{x=\"1\"}\n"
    "broken\n";

TEST(MetricSum, AddsTheSamplesOfOneSeries) {
  EXPECT_EQ(MetricSum(kMetrics, "kvasir_kv_bytes", "state=\"running\""), 1024);
  EXPECT_EQ(MetricSum(kMetrics, "kvasir_kv_bytes", "state=\"snapshots\""), 1500);
  EXPECT_EQ(MetricSum(kMetrics, "kvasir_kv_bytes"), 2524);
  EXPECT_EQ(MetricSum(kMetrics, "plain"), 3);
  EXPECT_EQ(MetricSum(kMetrics, "vllm:usage"), 0.25);
}

TEST(MetricSum, HasNothingToSayOfAbsentOrBrokenOnes) {
  EXPECT_EQ(MetricSum(kMetrics, "kvasir_kv"), std::nullopt);
  EXPECT_EQ(MetricSum(kMetrics, "plain", "state=\"x\""), std::nullopt);
  EXPECT_EQ(MetricSum(kMetrics, "broken"), std::nullopt);
  EXPECT_EQ(MetricSum("", "plain"), std::nullopt);
}

TEST(MemoryOfTree, CountsChildrenToo) {
  constexpr size_t kBytes = size_t{24} << 20;
  const std::optional<ProcessMemory> before = MemoryOfTree(static_cast<uint32_t>(getpid()));
  ASSERT_TRUE(before);
  EXPECT_GT(before->resident_bytes, size_t{1} << 20);
  EXPECT_GE(before->max_ever_bytes, before->resident_bytes);
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t child = fork();
  if (child == 0) {
    std::vector<char> held(kBytes);
    std::memset(held.data(), 1, held.size());
    if (write(ready[1], held.data(), 1) != 1) _exit(1);
    pause();
    _exit(0);
  }
  char byte = 0;
  ASSERT_EQ(read(ready[0], &byte, 1), 1);
  const std::optional<ProcessMemory> after = MemoryOfTree(static_cast<uint32_t>(getpid()));
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  close(ready[0]);
  close(ready[1]);
  ASSERT_TRUE(after);
  EXPECT_GE(after->resident_bytes, before->resident_bytes + kBytes);
}

TEST(MemoryOfTree, IsNothingForAProcessThatIsNot) {
  EXPECT_FALSE(MemoryOfTree(4194305));  // above the kernel's highest process number
}

}  // namespace
}  // namespace kvasir::bench
