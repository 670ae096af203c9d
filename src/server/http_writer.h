// The outgoing half of a connection: one reply, written by cpp-httplib.
//
// cpp-httplib 0.11.4, Debian's, is used through process_request with a stream of ours. Its writing
// is sound. Its reading is not, and cannot be configured here: it takes any number of headers,
// decodes %0D%0A in their values, runs a backtracking regular expression over Range, keeps a
// client's REMOTE_ADDR, ignores the body limit for chunked bodies and compresses answers on
// request. So what it reads is a head written here, out of words of our own; no byte of a client
// reaches it.
//
// Threads  A function of its arguments.
#pragma once

#include <string_view>

#include "server/http.h"
#include "server/http_head.h"

namespace kvasir {

struct HttpAnswer {
  std::string_view method = "GET";  // of the request; only HEAD matters: it gets no body
  bool http10 = false;              // without chunks: a stream ends with the connection
  bool close = false;
  // Said to the client if the connection stays open: how long, and for how many requests.
  double idle_seconds = 5;
  size_t requests_left = 1;
  HttpReply* reply = nullptr;
};

// Whether a reply of a handler can be written as it is: a status, header names that are words,
// values that are one printable line.
bool IsWritable(const HttpReply& reply);

// Writes it, running the stream. False when the connection cannot be used any more, because the
// client is gone or a stream was cut off.
bool WriteHttpAnswer(HttpChannel& channel, const HttpAnswer& answer);

}  // namespace kvasir
