#pragma once
// Target attention over sequences of any length (DIN: Zhou et al., KDD 2018, section 4.3): how much each value of a sequence counts
// depends on what is scored.
//
//   pooled = sum_j a_j e_j,  a_j = MLP([e_j, q, e_j - q, e_j * q])
//
// e_j: embeddings of the sequence's values, q: that of the target. No padding: the values of all samples lie one after the other, and
// the network is computed for blocks of them at once.
#include <ATen/ATen.h>

#include <string>
#include <utility>
#include <vector>

#include "config/fields.h"
#include "nn/parameters.h"

namespace ektm {

struct AttentionConfig {
  std::vector<std::pair<std::string, std::string>> targets;  // sequence -> target
  std::vector<int64_t> hidden{32};
  std::string normalize = "none";
  void fields(FieldVisitor& v) {
    v.field("targets", targets,
            "SEQUENCE: TARGET, e.g. {history: video_id}. Instead of the schema's pooling, the values of SEQUENCE (kind ids or sequence) are weighted by a "
            "network that compares each with the value of TARGET (kind id, of the same table): DIN. max_length in the schema bounds the cost");
    v.field("hidden", hidden, {1, 65536}, "sizes of the network's hidden layers, each with relu; one network a sequence and group of embeddings");
    v.field("normalize", normalize, {"none", "softmax"}, "of the weights: none, as in the paper, keeps how strong the interest is; softmax: they sum to 1");
  }
};

namespace ops {

// pooled [G,B,d] (a stack, see nn/ops.h), group by group. values [N,G*d]: row r holds the G embeddings of the r-th value; those of sample b
// are the rows offsets[b] .. offsets[b+1]. offsets: int32 [B+1], from 0 to N; a sample without values gets 0. query [G,B,d]. The network's
// layer l has weights[l] [G,in,out] and biases[l] [G,1,out] and, but for the last, relu; the first has in = 4 d, the last out = 1, and its
// bias may be absent (one fewer than weights). Gradients go to values, query, weights and biases. Of the network's hidden numbers nothing
// is kept for backward, which computes them again.
at::Tensor attend(const at::Tensor& values, const at::Tensor& query, const at::Tensor& offsets, const std::vector<at::Tensor>& weights,
                  const std::vector<at::Tensor>& biases, bool softmax);

// x [G,B,D] with the columns first, first + 1, ... replaced by `columns` [G,B,n]. Takes over x's memory: x itself is not to be read again.
at::Tensor put_columns(const at::Tensor& x, const at::Tensor& columns, int64_t first);

}  // namespace ops

class TargetAttention {
 public:
  // A network for each of G groups: their embeddings have nothing in common. It starts as the sum of the values, or with softmax nearly
  // as their mean.
  TargetAttention(ParameterStore& store, const std::string& name, int64_t groups, int64_t dim, const AttentionConfig& config);
  // Shapes as of ops::attend.
  at::Tensor forward(const at::Tensor& values, const at::Tensor& query, const at::Tensor& offsets) const;

 private:
  bool softmax_;
  std::vector<at::Tensor> weights_, biases_;
};

}  // namespace ektm
