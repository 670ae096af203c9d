#include "bench/sse.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/error.h"

namespace kvasir::bench {
namespace {

using testing::ElementsAre;

// "type|data" of each event, the stream cut into pieces of `piece` bytes.
std::vector<std::string> Events(std::string_view stream, size_t piece = 1000, bool finish = true) {
  std::vector<std::string> events;
  SseParser parser([&](const SseEvent& e) { events.push_back(e.type + "|" + e.data); });
  for (size_t at = 0; at < stream.size(); at += piece) parser.Feed(stream.substr(at, piece));
  if (finish) parser.Finish();
  return events;
}

TEST(SseParser, GivesTheSameEventsHoweverTheStreamIsCut) {
  const std::string stream =
      ": keep alive\n\ndata: {\"a\":1}\r\n\r\nevent: error\rdata:two\r\rdata: x\ndata:  y\nid: "
      "7\n\n"
      "data\n\nnonsense\n\ndata: [DONE]\n\n";
  for (size_t piece = 1; piece <= stream.size(); ++piece) {
    EXPECT_THAT(Events(stream, piece),
                ElementsAre("|{\"a\":1}", "error|two", "|x\n y", "|", "|[DONE]"))
        << piece;
  }
}

TEST(SseParser, ForgetsTheTypeAfterItsEvent) {
  EXPECT_THAT(Events("event: a\n\ndata: 1\n\n"), ElementsAre("|1"));
  EXPECT_THAT(Events("event: a\ndata: 1\n\ndata: 2\n\n"), ElementsAre("a|1", "|2"));
}

TEST(SseParser, SkipsAByteOrderMark) {
  EXPECT_THAT(Events("\xEF\xBB\xBF"
                     "data: 1\n\n",
                     1),
              ElementsAre("|1"));
}

TEST(SseParser, HandsOutTheLastEventOnlyAtTheEnd) {
  EXPECT_TRUE(Events("data: 1", 1000, /*finish=*/false).empty());
  EXPECT_TRUE(Events("data: 1\n", 1000, /*finish=*/false).empty());
  EXPECT_THAT(Events("data: 1"), ElementsAre("|1"));
  EXPECT_THAT(Events("data: 1\n"), ElementsAre("|1"));
  EXPECT_TRUE(Events("").empty());
}

TEST(SseParser, TakesAnErrorField) {
  EXPECT_THAT(Events("error: {\"message\":\"no\"}\n\n"), ElementsAre("error|{\"message\":\"no\"}"));
}

TEST(SseParser, RefusesAnEventWithoutEnd) {
  SseParser parser([](const SseEvent&) {});
  const std::string megabyte(size_t{1} << 20, 'x');
  EXPECT_THROW(
      {
        for (int i = 0; i < 20; ++i) parser.Feed(megabyte);
      },
      Error);
}

}  // namespace
}  // namespace kvasir::bench
