// What hostile clients do to HTTP servers. After each attack the server answers.
#include <gmock/gmock.h>

#include "server/http.h"
#include "server/http_test_client.h"

namespace kvasir {
namespace {

using test::Eventually;
using test::Get;
using test::HttpAnswerText;
using test::HttpTestClient;
using test::HttpTestServer;
using test::OpenFds;
using test::Post;
using ::testing::HasSubstr;
using ::testing::Not;

std::string Chunked(std::string_view body) {
  return fmt::format(
      "POST /v1/echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n{}", body);
}

TEST(HttpAttack, BodiesEndAtTheLimitHoweverTheyCome) {
  HttpTestServer server;
  const std::string most(1000, 'x');
  EXPECT_EQ(server.Ask(Post("/v1/echo", most)).body, most);
  EXPECT_EQ(server.Ask(Post("/v1/echo", most + "x")).status, 413);
  EXPECT_EQ(server.Ask(Chunked("3E8\r\n" + most + "\r\n0\r\n\r\n")).body, most);
  EXPECT_EQ(server.calls, 2);
  EXPECT_EQ(server.Ask(Chunked("3E9\r\n")).status, 413);
  EXPECT_EQ(server.Ask(Chunked("3E8\r\n" + most + "\r\n1\r\n")).status, 413);
  // Announced only: refused before it is sent.
  EXPECT_EQ(server
                .Ask("POST /v1/echo HTTP/1.1\r\nHost: localhost\r\n"
                     "Content-Length: 18446744073709551615\r\n\r\n")
                .status,
            413);
  EXPECT_EQ(server.calls, 2);
}

TEST(HttpAttack, TheAnswerArrivesAlthoughTheClientKeepsSending) {
  HttpTestServer server;
  HttpTestClient client = server.Connect();
  client.Send("POST /v1/echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4000000\r\n\r\n");
  client.Send(std::string(4000000, 'x'));
  EXPECT_EQ(client.Read().status, 413);
  EXPECT_TRUE(server.Answers());
}

TEST(HttpAttack, ChunkSizesAreHexadecimalAndFit) {
  HttpTestServer server;
  for (const char* size :
       {"-1", "+1", "0x1", "", " 1", "1 ", "g", "1;name=value", "1;", "10000000000000000",
        "FFFFFFFFFFFFFFFFF", "00000000000000001", "-8000000000000000", "1\t", "1\n", "\r"}) {
    const HttpAnswerText answer = server.Ask(Chunked(fmt::format("{}\r\nx\r\n0\r\n\r\n", size)));
    EXPECT_EQ(answer.status, 400) << size;
  }
  for (const char* size :
       {"FFFFFFFFFFFFFFFF", "7FFFFFFFFFFFFFFF", "8000000000000000", "FFFFFFFF"}) {
    EXPECT_EQ(server.Ask(Chunked(fmt::format("1\r\nx\r\n{}\r\n", size))).status, 413) << size;
  }
  EXPECT_EQ(server.Ask(Chunked("1\r\nxy\r\n0\r\n\r\n")).status, 400);
  EXPECT_EQ(server.Ask(Chunked("1\nx\n0\n\n")).status, 400);
  EXPECT_EQ(server.calls, 0);
}

TEST(HttpAttack, HeadersAreBounded) {
  HttpTestServer server;
  const auto headers = [](int count) {
    std::string text;
    for (int i = 0; i < count; ++i) text += fmt::format("X-{}: 1\r\n", i);
    return text;
  };
  EXPECT_EQ(server.Ask(Get("/open", headers(99))).status, 200);
  EXPECT_EQ(server.Ask(Get("/open", headers(100))).status, 431);
  EXPECT_EQ(server.Ask(Get("/open", headers(200000))).status, 431);
  EXPECT_EQ(server.Ask(Get("/open", "X: " + std::string(60000, 'x') + "\r\n")).status, 200);
  EXPECT_EQ(server.Ask(Get("/open", "X: " + std::string(70000, 'x'))).status, 431);
  EXPECT_EQ(server.Ask("GET /open?" + std::string(9000, 'x')).status, 414);
  EXPECT_EQ(server.Ask(Chunked("0\r\nX: " + std::string(70000, 'x'))).status, 400);
  EXPECT_EQ(server.Ask(Chunked("0\r\n" + headers(200000))).status, 431);
  EXPECT_TRUE(server.Answers());
}

TEST(HttpAttack, SlowHeadersAreGivenUp) {
  HttpOptions options = HttpTestServer::Patient();
  options.limits.header_seconds = 0.5;
  HttpTestServer server(options);
  HttpTestClient silent = server.Connect(), stuck = server.Connect(), trickling = server.Connect();
  stuck.Send("GET /open HTTP/1.1\r\nHost: local");
  trickling.Send("GET /open HTTP/1.1\r\nHost: localhost\r\n");
  // A byte now and then does not buy time.
  while (trickling.Send("X: 1\r\n")) {
    pollfd answer{trickling.fd(), POLLIN, 0};
    if (::poll(&answer, 1, 20) > 0) break;
  }
  EXPECT_EQ(trickling.Read().status, 408);
  EXPECT_EQ(stuck.Read().status, 408);
  EXPECT_TRUE(silent.ClosedByServer());
  EXPECT_TRUE(server.Answers());
}

TEST(HttpAttack, SlowBodiesAreGivenUp) {
  HttpOptions options = HttpTestServer::Patient();
  options.limits.body_seconds = 0.3;
  HttpTestServer server(options);
  HttpTestClient client = server.Connect(), chunked = server.Connect();
  client.Send("POST /v1/echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 999\r\n\r\n");
  chunked.Send(Chunked("5\r\nab"));
  while (client.Send("x")) {
    pollfd answer{client.fd(), POLLIN, 0};
    if (::poll(&answer, 1, 20) > 0) break;
  }
  EXPECT_EQ(client.Read().status, 408);
  EXPECT_EQ(chunked.Read().status, 408);
  EXPECT_EQ(server.calls, 0);
  EXPECT_TRUE(server.Answers());
}

TEST(HttpAttack, IdleConnectionsAreClosedInTime) {
  HttpOptions options = HttpTestServer::Patient();
  options.limits.idle_seconds = 0.1;
  HttpTestServer server(options);
  HttpTestClient client = server.Connect();
  EXPECT_EQ(client.Ask(Get("/open")).status, 200);
  EXPECT_TRUE(client.ClosedByServer());
}

TEST(HttpAttack, AClientIsWhoItsSocketSays) {
  HttpTestServer server;
  const std::string forged =
      "REMOTE_ADDR: 10.0.0.1\r\nX-Forwarded-For: 10.0.0.2\r\nForwarded: for=10.0.0.3\r\n"
      "X-Real-IP: 10.0.0.4\r\nREMOTE_PORT: 1\r\nLOCAL_ADDR: 10.0.0.5\r\n";
  EXPECT_EQ(server.Ask(Get("/remote", forged)).body, "127.0.0.1");
  server.Stop();
  EXPECT_THAT(server.log().at(0), Not(HasSubstr("10.0.0")));
}

TEST(HttpAttack, LineBreaksNeverReachAnAnswerOrALogLine) {
  HttpOptions options = HttpTestServer::Patient();
  options.api_keys = {"key"};
  options.cors_origins = {"https://chat.example.org"};
  HttpTestServer server(options);
  const std::string evil = "%0D%0ASet-Cookie:%20evil=1";
  std::string seen;
  for (const std::string& request :
       {Get("/open" + evil), Get("/open?" + evil), Get("/" + evil, "X-Api-Key: " + evil + "\r\n"),
        Get("/open", "Origin: https://chat.example.org" + evil + "\r\n"),
        Get("/v1/models", "Authorization: Bearer " + evil + "\r\nX-Request-Id: " + evil + "\r\n"),
        fmt::format("GET /open HTTP/1.1\r\nHost: localhost{}\r\n\r\n", evil),
        fmt::format("OPTIONS /open HTTP/1.1\r\nHost: localhost\r\nOrigin: https://chat.example.org"
                    "\r\nAccess-Control-Request-Method: {0}\r\n"
                    "Access-Control-Request-Headers: {0}\r\n\r\n",
                    evil),
        fmt::format("GET{} /open HTTP/1.1\r\nHost: localhost\r\n\r\n", evil),
        std::string("GET /open\rSet-Cookie:evil HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        std::string("GET /open\nSet-Cookie:evil HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        Get("/open", "X: a\rSet-Cookie: evil\r\n"), Get("/open", "X: a\nSet-Cookie: evil\r\n"),
        Get("/open", std::string("X: a\0b\r\n", 8))}) {
    const HttpAnswerText answer = server.Ask(request);
    EXPECT_NE(answer.status, 0) << request;
    seen += answer.head + answer.body;
  }
  server.Stop();
  for (const std::string& line : server.log()) {
    seen += line;
    EXPECT_EQ(line.find_first_of("\r\n"), std::string::npos);
  }
  EXPECT_THAT(seen, Not(HasSubstr("evil")));
}

TEST(HttpAttack, PartsAndPackedBodiesAreRefused) {
  HttpTestServer server;
  std::string ranges = "Range: bytes=0-";
  for (int i = 0; i < 1000; ++i) ranges += fmt::format(",{}-", i);
  EXPECT_EQ(server.Ask(Get("/open", ranges + "\r\n")).status, 416);
  EXPECT_EQ(server.Ask(Get("/open", "Range: bytes=0-1\r\n")).status, 416);
  EXPECT_EQ(server.Ask(Get("/open", "Range: " + std::string(60000, '-') + "\r\n")).status, 416);
  for (const char* coding : {"gzip", "br", "deflate", "identity", "x"}) {
    const HttpAnswerText answer =
        server.Ask(Post("/v1/echo", "x", fmt::format("Content-Encoding: {}\r\n", coding)));
    EXPECT_EQ(answer.status, 415) << coding;
  }
  EXPECT_EQ(server.calls, 0);
  // And nothing comes back packed.
  EXPECT_EQ(server.Ask(Get("/open", "Accept-Encoding: gzip, br\r\n")).body, "open");
}

TEST(HttpAttack, NoPathTrickGetsAroundTheKey) {
  HttpOptions options = HttpTestServer::Patient();
  options.api_keys = {"key"};
  HttpTestServer server(options);
  for (const char* path :
       {"//v1/models", "/v1//models", "/V1/models", "/v1/Models", "/v1/models/", "/v1/models/.",
        "/v1/../v1/models", "/./v1/models", "/open/../v1/models", "/%761/models", "/v1%2fmodels",
        "/v1/models%00", "/v1/models%20", "/v1/models;x", "/v1\\models", "/v1/models%3f",
        "/open/v1/models", "/v1", "/"}) {
    const HttpAnswerText answer = server.Ask(Get(path, "x-api-key: key\r\n"));
    EXPECT_EQ(answer.status, 404) << path;
    EXPECT_EQ(server.Ask(Get(path)).status, 404) << path;
  }
  for (const char* target : {"*", "v1/models", "http://localhost/v1/models", "/v1/models#x", "/a b",
                             "/v1/mod\xc3\xa9ls", "/v1/models\t"}) {
    EXPECT_EQ(server.Ask(Get(target)).status, 400) << target;
  }
  for (const char* method :
       {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "get", "PROPFIND"}) {
    for (const char* path : {"/v1/models", "/v1/models?x=1", "/v1/echo"}) {
      const HttpAnswerText answer =
          server.Ask(fmt::format("{} {} HTTP/1.1\r\nHost: localhost\r\n"
                                 "X-HTTP-Method-Override: GET\r\nX-Original-URL: /open\r\n\r\n",
                                 method, path));
      EXPECT_EQ(answer.status, 401) << method << path;
    }
  }
  EXPECT_EQ(server.calls, 0);
}

TEST(HttpAttack, NoBodyIsReadBeforeTheKey) {
  HttpOptions options = HttpTestServer::Patient();
  options.api_keys = {"key"};
  HttpTestServer server(options);
  HttpTestClient client = server.Connect();
  // The answer does not wait for the announced body, and what follows is no request.
  client.Send("POST /v1/echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\n" +
              Get("/open"));
  EXPECT_EQ(client.Read().status, 401);
  EXPECT_TRUE(client.ClosedByServer());
}

TEST(HttpAttack, RequestsCannotBeSmuggled) {
  HttpTestServer server;
  const std::string start = "POST /v1/echo HTTP/1.1\r\nHost: localhost\r\n";
  for (const char* headers : {"Content-Length: 5\r\nTransfer-Encoding: chunked",
                              "Content-Length: 5\r\nContent-Length: 5",
                              "Content-Length: 5\r\nContent-Length: 6",
                              "Content-Length: 5, 5",
                              "Content-Length: +5",
                              "Content-Length: -5",
                              "Content-Length: 0x5",
                              "Content-Length: 5 5",
                              "Content-Length:",
                              "Content-Length: 18446744073709551616",
                              "Content-Length: 99999999999999999999999999",
                              "Transfer-Encoding: xchunked",
                              "Transfer-Encoding: chunked, identity",
                              "Transfer-Encoding: gzip, chunked",
                              "Transfer-Encoding: chunked, chunked",
                              "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
                              "Transfer-Encoding: \x0b"
                              "chunked",
                              "Transfer-Encoding : chunked",
                              " Transfer-Encoding: chunked",
                              "Transfer-Encoding:\r\n chunked",
                              "Transfer-Encoding:",
                              "X: 1\r\n folded",
                              "No colon",
                              ": no name",
                              "Bad name: 1",
                              "N\xc3\xa4me: 1",
                              "Host: localhost",
                              "Host: evil.example"}) {
    HttpTestClient client = server.Connect();
    const HttpAnswerText answer = client.Ask(start + headers + "\r\n\r\n0\r\n\r\n" + Get("/open"));
    EXPECT_EQ(answer.status, 400) << headers;
    // What follows a request of unclear length is never read as one.
    EXPECT_TRUE(client.ClosedByServer()) << headers;
  }
  EXPECT_EQ(server
                .Ask("POST /v1/echo HTTP/1.0\r\nHost: localhost\r\n"
                     "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
                .status,
            400);
  EXPECT_EQ(server.Ask("GET /open HTTP/1.1\r\n\r\n").status, 400);
  EXPECT_EQ(server.calls, 0);
}

TEST(HttpAttack, WhatIsNoHttpIsRefused) {
  HttpTestServer server;
  const auto status = [&](std::string_view bytes) { return server.Ask(bytes).status; };
  EXPECT_EQ(status("GET /open\r\n\r\n"), 400);  // HTTP/0.9
  EXPECT_EQ(status("GET /open HTTP/2.0\r\n\r\n"), 505);
  EXPECT_EQ(status("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 505);
  EXPECT_EQ(status("GET /open HTTP/1.1x\r\nHost: localhost\r\n\r\n"), 400);
  EXPECT_EQ(status("GET  /open HTTP/1.1\r\nHost: localhost\r\n\r\n"), 400);
  EXPECT_EQ(status(" GET /open HTTP/1.1\r\nHost: localhost\r\n\r\n"), 400);
  EXPECT_EQ(status("\r\n\r\n\r\nGET /open HTTP/1.1\r\n"), 400);
  EXPECT_EQ(status("CONNECT evil.example:443 HTTP/1.1\r\nHost: localhost\r\n\r\n"), 400);
  EXPECT_EQ(status(std::string_view("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11)), 400);
  EXPECT_EQ(status(std::string(64, '\0')), 400);
  EXPECT_EQ(status("\xff\xfe\xfd"), 400);
  EXPECT_TRUE(server.Answers());
}

TEST(HttpAttack, AClientThatLeavesEndsItsWork) {
  HttpTestServer server;
  const size_t fds = OpenFds();
  {
    HttpTestClient closed = server.Connect(), half = server.Connect(), reset = server.Connect();
    HttpTestClient streaming = server.Connect(), quiet = server.Connect();
    closed.Send(Post("/wait", "x"));
    half.Send(Post("/wait", "x"));
    reset.Send(Post("/wait", "x") + Get("/open"));
    streaming.Send(Get("/endless"));
    quiet.Send(Get("/quiet"));
    ASSERT_TRUE(Eventually([&] { return server.started == 5; }));
    ASSERT_TRUE(streaming.ReadUntil("xxxx"));
    EXPECT_EQ(server.ended, 0);
    closed.Close();
    half.HalfClose();
    reset.Reset();
    streaming.Close();
    quiet.HalfClose();
    EXPECT_TRUE(Eventually([&] { return server.ended == 5; }));
  }
  EXPECT_TRUE(Eventually([&] { return OpenFds() == fds; }));
  EXPECT_TRUE(server.Answers());
}

TEST(HttpAttack, AHalfClosedClientGetsItsPlainAnswer) {
  HttpTestServer server;
  HttpTestClient client = server.Connect();
  client.Send(Post("/v1/echo", "hello"));
  client.HalfClose();
  EXPECT_EQ(client.Read().body, "hello");
  EXPECT_TRUE(client.ClosedByServer());
}

TEST(HttpAttack, ClientsThatLeaveInTheirRequestLeaveNothing) {
  HttpTestServer server;
  const size_t fds = OpenFds();
  const std::string request = Post("/v1/echo", "hello");
  for (size_t length = 0; length < request.size(); length += 3) {
    HttpTestClient client = server.Connect();
    client.Send(request.substr(0, length));
    if (length % 2 == 0) client.HalfClose();
    if (length % 2 == 1) client.Reset();
  }
  EXPECT_TRUE(Eventually([&] { return OpenFds() == fds; }));
  EXPECT_EQ(server.calls, 0);
  EXPECT_TRUE(server.Answers());
}

TEST(HttpAttack, AClientThatReadsNothingIsGone) {
  HttpOptions options = HttpTestServer::Patient();
  options.limits.write_seconds = 0.3;
  HttpTestServer server(options);
  HttpTestClient client = server.Connect();
  client.Send(Get("/endless"));
  EXPECT_TRUE(Eventually([&] { return server.ended == 1; }));
  EXPECT_TRUE(server.Answers());
}

TEST(HttpAttack, IdleConnectionsMakeWayForNewOnes) {
  HttpOptions options = HttpTestServer::Patient();
  options.limits.connections = 64;
  HttpTestServer server(options);
  const size_t fds = OpenFds();
  {
    std::vector<HttpTestClient> crowd;
    for (int i = 0; i < 800; ++i) {
      crowd.push_back(server.Connect());
      // Some have sent a part of a request, or of its body.
      if (i % 3 == 1) crowd.back().Send("GET /op");
      if (i % 3 == 2) crowd.back().Send(Post("/v1/echo", "body").substr(0, 70));
      if (i % 100 == 0) {
        EXPECT_TRUE(server.Answers()) << i;
      }
    }
    EXPECT_TRUE(server.Answers());
    EXPECT_TRUE(Eventually([&] { return OpenFds() <= fds + 800 + 64; }));
  }
  EXPECT_TRUE(Eventually([&] { return OpenFds() == fds; }));
  EXPECT_TRUE(server.Answers());
}

TEST(HttpAttack, AThousandRequestsAtOnceAreAnswered) {
  HttpTestServer server;
  std::vector<std::thread> threads;
  std::atomic<int> good = 0;
  for (int t = 0; t < 10; ++t) {
    threads.emplace_back([&] {
      std::vector<HttpTestClient> clients;
      for (int i = 0; i < 50; ++i) clients.push_back(server.Connect());
      for (HttpTestClient& client : clients) client.Send(Get("/open") + Get("/stream"));
      for (HttpTestClient& client : clients) {
        good += client.Read().body == "open" ? 1 : 0;
        good += client.Read().body == "onetwo" ? 1 : 0;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(good, 1000);
}

TEST(HttpAttack, MoreConnectionsThanItWorksForAreRefused) {
  HttpOptions options = HttpTestServer::Patient();
  options.limits.connections = 3;
  HttpTestServer server(options);
  std::vector<HttpTestClient> holding;
  for (int i = 0; i < 3; ++i) {
    holding.push_back(server.Connect());
    holding.back().Send(Get("/hold"));
  }
  ASSERT_TRUE(Eventually([&] { return server.started == 3; }));
  HttpTestClient refused = server.Connect();
  const HttpAnswerText answer = refused.Read();
  EXPECT_EQ(answer.status, 503);
  EXPECT_EQ(answer.Header("retry-after"), "1");
  EXPECT_THAT(answer.body, HasSubstr("\"type\":\"unavailable_error\""));
  EXPECT_TRUE(answer.whole);
  server.release = true;
  for (HttpTestClient& client : holding) EXPECT_EQ(client.Read().body, "held");
  EXPECT_TRUE(server.Answers());
}

}  // namespace
}  // namespace kvasir
