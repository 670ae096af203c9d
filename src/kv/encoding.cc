#include "kv/encoding.h"

#include "base/error.h"

namespace kvasir {

namespace {

// What a rule makes of planes of heads of `head_dim` channels.
PlaneLife LifeOf(const EncodingRule& rule, uint32_t head_dim) {
  PlaneForm form = rule.codec;
  if (IsSparse(rule.codec)) {
    form.keep = rule.keep > 0 ? rule.keep : KeptChannels(head_dim, rule.thousandths);
  }
  return {.open = rule.recent > 0 ? PlaneForm(rule.open) : form, .sealed = form};
}

void CheckRule(const EncodingRule& rule, uint32_t n_layers, uint32_t head_dim) {
  if (rule.keep > head_dim) {
    Fail(Code::kUsage,
         "--kv-codec: keep={} is more than the {} elements of a row of this model: give keep={} or "
         "less, or sparsity=",
         rule.keep, head_dim, head_dim);
  }
  const bool to_the_end = rule.last_layer == EncodingRule::kLastLayer;
  if (rule.first_layer >= n_layers || (!to_the_end && rule.last_layer >= n_layers)) {
    Fail(Code::kUsage, "--kv-codec: layers={}-{}: the model has layers 0-{}", rule.first_layer,
         rule.last_layer, n_layers - 1);
  }
}

}  // namespace

LayerEncodings ResolveEncoding(const Encoding& encoding, uint32_t n_layers, uint32_t head_dim,
                               const std::function<uint32_t(uint32_t layer)>& window) {
  const PlaneForm k = encoding.k, v = encoding.v;
  LayerEncodings resolved;
  resolved.layers.assign(n_layers, {.k = {k, k}, .v = {v, v}});
  bool seals = false, by_query = false;
  for (const EncodingRule& rule : encoding.rules) {
    CheckRule(rule, n_layers, head_dim);
    const PlaneLife life = LifeOf(rule, head_dim);
    for (uint32_t layer = rule.first_layer; layer < n_layers && rule.Covers(layer); ++layer) {
      if (life.seals() && window(layer) > 0 && window(layer) <= kShortWindow) continue;
      if (rule.keys) resolved.layers[layer].k = life;
      resolved.layers[layer].k.by_query |= rule.keys && rule.by_query;
      by_query |= rule.keys && rule.by_query;
      if (rule.values) resolved.layers[layer].v = life;
      seals |= life.seals();
    }
  }
  if (seals) resolved.seals = encoding.seals;
  resolved.seals.by_query = by_query;
  return resolved;
}

}  // namespace kvasir
