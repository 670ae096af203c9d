#include "eval/stream.h"

#include <algorithm>
#include <memory>
#include <string>

#include "base/error.h"
#include "engine/scoring.h"
#include "eval/usage.h"

namespace kvasir {

namespace {

constexpr uint32_t kGroupTokens = 256;  // of running text

// Logits of up to `rows` rows of a pass.
class PassLogits {
 public:
  explicit PassLogits(uint32_t rows) : rows_(rows) {}
  void Put(uint32_t row, std::span<const float> logits) {
    CHECK(row < rows_);
    vocabulary_ = logits.size();
    values_.resize(rows_ * vocabulary_);
    std::copy(logits.begin(), logits.end(), &values_[row * vocabulary_]);
  }
  std::span<const float> row(uint32_t row) const {
    return std::span(values_).subspan(row * vocabulary_, vocabulary_);
  }

 private:
  size_t rows_, vocabulary_ = 0;
  std::vector<float> values_;
};

template <typename F>
void WithLabel(std::string_view label, F&& f) {
  try {
    f();
  } catch (const Error& error) {
    throw Error(error.code(), fmt::format("case {}: {}", label, error.what()));
  }
}

// A case while it reads.
class Reader {
 public:
  explicit Reader(const TextCase& c) : case_(c), meter_(*c.engine) {}

  std::string_view label() const { return case_.label; }
  void Begin(std::span<const int32_t> tokens, uint32_t prompt_end) {
    scoring_.reset();  // gives its memory back before the next one asks for it
    scoring_ = std::make_unique<Scoring>(*case_.engine, tokens, prompt_end);
    window_drop_.reset();
  }
  // Reads up to `end`; row 0 of `logits` is the first token read.
  void ReadTo(uint32_t end, PassLogits* logits) {
    const uint32_t first = scoring_->position();
    while (scoring_->position() < end) {
      const uint32_t position = scoring_->position();
      const uint64_t entries = scoring_->lanes().n_entries();
      scoring_->Pass(end - position, [&](uint32_t at, std::span<const float> row) {
        logits->Put(at - first, row);
      });
      const std::optional<PassReads> reads = scoring_->reads();
      meter_.AddPass(scoring_->lanes(), position, entries, reads);
      // A row that does not read all there is counts like one behind a drop.
      if (!window_drop_ && reads && reads->hidden > 0) window_drop_ = position;
      if (!window_drop_ && scoring_->lanes().dropped() > 0) window_drop_ = scoring_->position();
    }
  }
  // Marks what counts of the sequence that was read to its end: targets [first_token, end) of it
  // from `scored_from` on; `after_drop`: those that a drop came before.
  void End(size_t first_token, uint32_t scored_from, bool after_drop) {
    if (window_drop_ && !run_.first_drop) run_.first_drop = window_drop_;
    const std::span<TokenFigures> tokens = std::span(run_.tokens).subspan(first_token);
    // Target i is predicted by the row before it, which reads what is left after a drop at i - 1.
    const uint32_t affected = window_drop_ ? *window_drop_ + 1 : 0;
    const uint32_t from = after_drop ? std::max(scored_from, affected) : scored_from;
    for (size_t i = 0; i < tokens.size(); ++i) {
      const auto target = static_cast<uint32_t>(i) + 1;
      tokens[i].scored = target >= from;
      if (window_drop_ && target >= std::max(from, affected)) run_.drops_in_range = true;
    }
    run_.memory = meter_.Figures(scoring_->lanes());
  }
  TextRun& run() { return run_; }

 private:
  TextCase case_;
  UsageMeter meter_;
  std::unique_ptr<Scoring> scoring_;
  std::optional<uint32_t> window_drop_;
  TextRun run_;
};

// The protocol over one text.
class TextReading {
 public:
  TextReading(const TextCase& dense, std::span<const TextCase> cases, Workers& workers,
              const TextProtocol& protocol)
      : workers_(workers),
        protocol_(protocol),
        dense_logits_(protocol.block),
        case_logits_(protocol.block) {
    readers_.emplace_back(dense);
    for (const TextCase& c : cases) readers_.emplace_back(c);
  }

  // One sequence from its begin to its end. `first` is its place in the text.
  void Read(std::span<const int32_t> tokens, uint32_t first,
            const std::function<void(uint32_t done)>& on_progress) {
    const auto n = static_cast<uint32_t>(tokens.size());
    const bool forced = protocol_.mode == TextMode::kForced;
    const size_t n_before = readers_[0].run().tokens.size();
    for (Reader& reader : readers_) {
      WithLabel(reader.label(), [&] { reader.Begin(tokens, forced ? protocol_.prompt : n); });
    }
    for (uint32_t begin = 0; begin < n; begin += protocol_.block) {
      const uint32_t end = std::min(n, begin + protocol_.block);
      for (Reader& reader : readers_) {
        const bool dense = &reader == &readers_[0];
        PassLogits* logits = dense ? &dense_logits_ : &case_logits_;
        WithLabel(reader.label(), [&] {
          reader.ReadTo(end, logits);
          if (dense && readers_.size() > 1) return;  // seen in the comparisons with others
          CompareRows(tokens, first, begin, end, *logits, &reader.run().tokens);
        });
      }
      if (on_progress) on_progress(end);
    }
    if (readers_.size() > 1) AddDense(n_before);
    const bool windows = protocol_.mode == TextMode::kWindows;
    const uint32_t from = windows ? n / 2 + 1 : forced ? protocol_.prompt : 1;
    for (Reader& reader : readers_) reader.End(n_before, from, /*after_drop=*/!windows);
  }

  std::vector<TextRun> Take() {
    std::vector<TextRun> runs;
    for (Reader& reader : readers_) runs.push_back(std::move(reader.run()));
    for (TextRun& run : runs) {
      run.memory.bytes_ratio = static_cast<double>(runs[0].memory.kv_end_bytes) /
                               static_cast<double>(run.memory.kv_end_bytes);
    }
    return runs;
  }

 private:
  void CompareRows(std::span<const int32_t> tokens, uint32_t first, uint32_t begin, uint32_t end,
                   const PassLogits& logits, std::vector<TokenFigures>* figures) {
    // The last token has none that follows.
    const uint32_t rows = std::min(end, static_cast<uint32_t>(tokens.size()) - 1) - begin;
    const size_t place = figures->size();
    figures->resize(place + rows);
    const bool windows = protocol_.mode == TextMode::kWindows;
    std::vector<std::optional<Error>> errors(rows);  // the first row's is told, not the first found
    workers_.Run(rows, [&](size_t row, size_t) {
      const auto r = static_cast<uint32_t>(row);
      const uint32_t position = first + begin + r;
      TokenFigures& token = (*figures)[place + row];
      token.position = position + 1;
      token.group = windows ? first / protocol_.window : token.position / kGroupTokens;
      try {
        token.divergence =
            Compare(dense_logits_.row(r), logits.row(r), tokens[begin + r + 1], position);
      } catch (const Error& error) {
        errors[row] = error;
      }
    });
    for (const std::optional<Error>& error : errors) {
      if (error) throw Error(*error);
    }
  }

  // The dense figures of tokens from `first_token` on, as a case was compared with them.
  void AddDense(size_t first_token) {
    for (TokenFigures token : std::span(readers_[1].run().tokens).subspan(first_token)) {
      const double nll = token.divergence.nll_dense;
      token.divergence = {.nll_dense = nll, .nll = nll, .same_top1 = true};
      readers_[0].run().tokens.push_back(token);
    }
  }

  Workers& workers_;
  TextProtocol protocol_;
  PassLogits dense_logits_, case_logits_;
  std::vector<Reader> readers_;  // the dense one first
};

}  // namespace

std::string_view Name(TextMode mode) {
  switch (mode) {
    case TextMode::kStream:
      return "stream";
    case TextMode::kWindows:
      return "windows";
    case TextMode::kForced:
      break;
  }
  return "forced";
}

std::vector<TextRun> ReadText(const TextCase& dense, std::span<const TextCase> cases,
                              Workers& workers, std::span<const int32_t> tokens,
                              const TextProtocol& protocol,
                              const std::function<void(double)>& on_progress) {
  const auto n = static_cast<uint32_t>(tokens.size());
  const bool windows = protocol.mode == TextMode::kWindows;
  const uint32_t least = windows                              ? protocol.window
                         : protocol.mode == TextMode::kForced ? protocol.prompt + 1
                                                              : 2;
  if (n < least) {
    Fail(Code::kInvalid, "text: {} tokens, mode={} needs at least {}", n, Name(protocol.mode),
         least);
  }
  TextReading reading(dense, cases, workers, protocol);
  const auto progress = [&](uint32_t done) {
    if (on_progress) on_progress(static_cast<double>(done) / n);
  };
  if (!windows) {
    reading.Read(tokens, 0, progress);
    return reading.Take();
  }
  for (uint32_t first = 0; first + protocol.window <= n; first += protocol.window) {
    std::vector<int32_t> window(tokens.begin() + first, tokens.begin() + first + protocol.window);
    if (protocol.bos) window[0] = *protocol.bos;
    reading.Read(window, first, [&](uint32_t done) { progress(first + done); });
  }
  return reading.Take();
}

}  // namespace kvasir
