#include "nn/embedding.h"

#include <ATen/CPUGeneratorImpl.h>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <algorithm>
#include <cmath>
#include <cstring>
#include <mutex>

#include "base/error.h"
#include "base/hash.h"
#include "base/random.h"
#include "base/threads.h"
#include "nn/kernels.h"

namespace ektm {
namespace {

constexpr int64_t kRowsPerTask = 64;  // samples a thread takes at a time

// Not yet touched memory of its own, in huge pages where the system gives them: look-ups go all over a table, and with pages of 4 KiB
// nearly each would miss the TLB too.
at::Tensor empty_table(at::IntArrayRef sizes) {
  at::Tensor table = at::empty(sizes);
#if defined(__linux__)
  constexpr uintptr_t kHugePage = uintptr_t{2} << 20;
  const uintptr_t begin = reinterpret_cast<uintptr_t>(table.data_ptr()), end = begin + table.nbytes();
  const uintptr_t first = (begin + kHugePage - 1) / kHugePage * kHugePage;
  if (first < end) madvise(reinterpret_cast<void*>(first), end - first, MADV_HUGEPAGE);  // advice: where it is refused, nothing is lost
#endif
  return table;
}

}  // namespace

EmbeddingStore::EmbeddingStore(const DatasetInfo& info, EmbeddingConfig config, int64_t groups, uint64_t seed, std::vector<int64_t> unpooled)
    : config_(std::move(config)), groups_(groups), field_count_(static_cast<int64_t>(info.fields.size())),
      number_count_(static_cast<int64_t>(info.numbers.size())), fields_(info.fields), bags_(info.bags), unpooled_(std::move(unpooled)) {
  EKTM_CHECK(groups_ >= 1);
  features_ = (field_count_ + static_cast<int64_t>(bags_.size())) * config_.dim + number_count_;
  offsets_.push_back(0);
  for (const auto& table : info.tables) offsets_.push_back(offsets_.back() + table.rows);
  if (rows() >= (int64_t{1} << 32))
    fail(ErrorKind::Model, "the embedding tables", "found {} rows in all; expected fewer than 2^32. Raise min_count or use hash_buckets.",
         rows());
  weights_ = empty_table({rows(), width()});
  // A generator a table: a table's start does not depend on the others.
  for (size_t t = 0; t < info.tables.size(); ++t) {
    auto generator = at::make_generator<at::CPUGeneratorImpl>(mix64(seed ^ hash64("embedding/" + info.tables[t].name)));
    weights_.narrow(0, offsets_[t], info.tables[t].rows).normal_(0, config_.init_std, generator);
  }
  if (config_.optimizer == "adam") {
    m_ = empty_table({rows(), width()}).zero_();
    v_ = empty_table({rows(), width()}).zero_();
  } else if (config_.optimizer == "adagrad") {
    v_ = empty_table({rows(), width()}).zero_();
  } else if (config_.optimizer == "rowwise_adagrad") {
    v_ = at::zeros({rows()});
  }
}

at::Tensor EmbeddingStore::gather(const Batch& batch, bool training) const {
  const int64_t batch_rows = batch.rows, dim = config_.dim, width = this->width();
  at::Tensor x = at::empty({groups_, batch_rows, features_});
  float* out = x.data_ptr<float>();
  const float* weights = weights_.const_data_ptr<float>();
  const int64_t group_stride = batch_rows * features_;
  parallel_for(0, batch_rows, kRowsPerTask, [&](int64_t begin, int64_t end) {
    std::vector<float> pooled(width);
    for (int64_t b = begin; b < end; ++b) {
      const int32_t* ids = batch.ids.data() + b * field_count_;
      float* row = out + b * features_;
      for (int64_t f = 0; f < field_count_; ++f) {
        const float* source = weights + (offsets_[fields_[f].table] + ids[f]) * width;
        // Rows of large tables come from memory: ask for the next sample's while this one's are copied.
        if (b + 1 < end) {
          const float* ahead = weights + (offsets_[fields_[f].table] + ids[field_count_ + f]) * width;
          for (int64_t w = 0; w < width; w += 16) __builtin_prefetch(ahead + w);
        }
        for (int64_t g = 0; g < groups_; ++g) std::memcpy(row + g * group_stride + f * dim, source + g * dim, dim * sizeof(float));
      }
      for (size_t k = 0; k < bags_.size(); ++k) {
        const Bag& bag = batch.bags[k];
        const int32_t first = bag.offsets[b], last = bag.offsets[b + 1];
        std::fill(pooled.begin(), pooled.end(), 0.f);
        const bool pools = !std::binary_search(unpooled_.begin(), unpooled_.end(), static_cast<int64_t>(k));
        for (int32_t i = first; pools && i < last; ++i) {
          const float* source = weights + (offsets_[bags_[k].table] + bag.values[i]) * width;
          for (int64_t w = 0; w < width; ++w) pooled[w] += source[w];
        }
        const float scale = bags_[k].sum_pooling || last == first ? 1.f : 1.f / static_cast<float>(last - first);
        for (int64_t g = 0; g < groups_; ++g)
          for (int64_t w = 0; w < dim; ++w)
            row[g * group_stride + (field_count_ + k) * dim + w] = pooled[g * dim + w] * scale;
      }
      if (number_count_ > 0)
        for (int64_t g = 0; g < groups_; ++g)
          std::memcpy(row + g * group_stride + features_ - number_count_, batch.numbers.data() + b * number_count_,
                      number_count_ * sizeof(float));
    }
  });
  if (training) x.set_requires_grad(true);
  return x;
}

at::Tensor EmbeddingStore::look_up(const Batch& batch, int64_t bag, bool training) const {
  constexpr int64_t kAhead = 8;  // rows of large tables come from memory
  const std::vector<int32_t>& values = batch.bags[bag].values;
  const int64_t count = static_cast<int64_t>(values.size()), width = this->width();
  at::Tensor result = at::empty({count, width});
  float* out = result.data_ptr<float>();
  const float* rows = weights_.const_data_ptr<float>() + offsets_[bags_[bag].table] * width;
  parallel_for(0, count, 256, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      if (i + kAhead < end)
        for (int64_t w = 0; w < width; w += 16) __builtin_prefetch(rows + values[i + kAhead] * width + w);
      std::memcpy(out + i * width, rows + values[i] * width, width * sizeof(float));
    }
  });
  if (training) result.set_requires_grad(true);
  return result;
}

// A stable radix sort by row: equal rows keep the order of the batch, so sums do not depend on threads.
void EmbeddingStore::sort_lookups() {
  constexpr int kBits = 11, kBuckets = 1 << kBits;
  scratch_.resize(lookups_.size());
  for (int shift = 0; shift < 32 && (rows() - 1) >> shift > 0; shift += kBits) {
    size_t counts[kBuckets + 1] = {};
    for (const Lookup& lookup : lookups_) ++counts[((lookup.row >> shift) & (kBuckets - 1)) + 1];
    for (int i = 0; i < kBuckets; ++i) counts[i + 1] += counts[i];
    for (const Lookup& lookup : lookups_) scratch_[counts[(lookup.row >> shift) & (kBuckets - 1)]++] = lookup;
    lookups_.swap(scratch_);
  }
}

double EmbeddingStore::collect(const Batch& batch, const at::Tensor& x_grad, const std::vector<at::Tensor>& value_grads) {
  const int64_t dim = config_.dim, width = this->width();
  EKTM_CHECK(x_grad.is_contiguous() && x_grad.size(0) == groups_ && x_grad.size(1) == batch.rows && x_grad.size(2) == features_);
  EKTM_CHECK(value_grads.size() == unpooled_.size());
  std::vector<const float*> of_values;
  for (size_t u = 0; u < unpooled_.size(); ++u) {
    EKTM_CHECK(value_grads[u].is_contiguous() && value_grads[u].numel() == static_cast<int64_t>(batch.bags[unpooled_[u]].values.size()) * width);
    of_values.push_back(value_grads[u].const_data_ptr<float>());
  }
  lookups_.clear();
  sources_.clear();
  auto add = [&](int64_t row, int64_t sample, int64_t slot, float scale) {
    lookups_.push_back({static_cast<uint32_t>(row), static_cast<uint32_t>(sources_.size())});
    sources_.push_back({static_cast<int32_t>(sample), static_cast<int32_t>(slot), scale});
  };
  for (int64_t b = 0; b < batch.rows; ++b)
    for (int64_t f = 0; f < field_count_; ++f) add(offsets_[fields_[f].table] + batch.ids[b * field_count_ + f], b, f, 1.f);
  for (size_t k = 0; k < bags_.size(); ++k) {
    const Bag& bag = batch.bags[k];
    if (const auto u = std::lower_bound(unpooled_.begin(), unpooled_.end(), static_cast<int64_t>(k)); u != unpooled_.end() && *u == static_cast<int64_t>(k)) {
      for (size_t i = 0; i < bag.values.size(); ++i)
        add(offsets_[bags_[k].table] + bag.values[i], static_cast<int64_t>(i), ~(u - unpooled_.begin()), 1.f);
      continue;
    }
    for (int64_t b = 0; b < batch.rows; ++b) {
      const int32_t length = bag.offsets[b + 1] - bag.offsets[b];
      for (int32_t i = bag.offsets[b]; i < bag.offsets[b + 1]; ++i)
        add(offsets_[bags_[k].table] + bag.values[i], b, field_count_ + static_cast<int64_t>(k),
            bags_[k].sum_pooling ? 1.f : 1.f / static_cast<float>(length));
    }
  }
  sort_lookups();

  unique_rows_.clear();
  starts_.clear();
  for (size_t i = 0; i < lookups_.size(); ++i)
    if (i == 0 || lookups_[i].row != lookups_[i - 1].row) {
      unique_rows_.push_back(lookups_[i].row);
      starts_.push_back(static_cast<int64_t>(i));
    }
  starts_.push_back(static_cast<int64_t>(lookups_.size()));
  const int64_t unique = static_cast<int64_t>(unique_rows_.size());
  if (!row_grads_.defined() || row_grads_.size(0) < unique) row_grads_ = at::empty({unique + unique / 4 + 1, width});

  float* grads = row_grads_.data_ptr<float>();
  const float* x = x_grad.const_data_ptr<float>();
  const float* weights = weights_.const_data_ptr<float>();
  const int64_t group_stride = batch.rows * features_;
  const float l2 = static_cast<float>(config_.l2);
  std::vector<double> squares(unique);
  // Threads take runs of look-ups, cut at unique rows: popular rows do not unbalance them.
  const int64_t total = static_cast<int64_t>(lookups_.size());
  parallel_for(0, total, 4096, [&](int64_t begin, int64_t end) {
    int64_t u = std::lower_bound(starts_.begin(), starts_.end() - 1, begin) - starts_.begin();
    for (; u < unique && starts_[u] < end; ++u) {
      float* grad = grads + u * width;
      std::fill(grad, grad + width, 0.f);
      for (int64_t i = starts_[u]; i < starts_[u + 1]; ++i) {
        const Source& source = sources_[lookups_[i].source];
        if (i + 4 < total) {
          const Source& ahead = sources_[lookups_[i + 4].source];
          __builtin_prefetch(ahead.slot < 0 ? of_values[~ahead.slot] + ahead.sample * width : x + ahead.sample * features_ + ahead.slot * dim);
        }
        if (source.slot < 0) {
          kernels::axpy(width, 1.f, of_values[~source.slot] + source.sample * width, grad);
          continue;
        }
        for (int64_t g = 0; g < groups_; ++g)
          kernels::axpy(dim, source.scale, x + g * group_stride + source.sample * features_ + source.slot * dim, grad + g * dim);
      }
      if (l2 != 0) kernels::axpy(width, l2, weights + unique_rows_[u] * width, grad);
      double sum = 0;
      for (int64_t w = 0; w < width; ++w) sum += static_cast<double>(grad[w]) * grad[w];
      squares[u] = sum;
    }
  });
  double sum = 0;
  for (double square : squares) sum += square;
  return sum;
}

void EmbeddingStore::apply(double grad_scale, double rate_scale) {
  ++step_;
  const int64_t width = this->width(), unique = static_cast<int64_t>(unique_rows_.size());
  float* weights = weights_.data_ptr<float>();
  const float* grads = row_grads_.const_data_ptr<float>();
  const float scale = static_cast<float>(grad_scale), rate = static_cast<float>(config_.learning_rate * rate_scale);
  const auto adam = kernels::adam_step(config_.learning_rate * rate_scale, config_.beta1, config_.beta2, config_.epsilon, 0, step_);
  float* m = m_.defined() ? m_.data_ptr<float>() : nullptr;
  float* v = v_.defined() ? v_.data_ptr<float>() : nullptr;
  const float epsilon = static_cast<float>(config_.epsilon);
  const bool per_number = v && v_.dim() == 2;
  parallel_for(0, unique, 256, [&](int64_t begin, int64_t end) {
    for (int64_t u = begin; u < end; ++u) {
      const int64_t at_number = unique_rows_[u] * width;
      if (u + 6 < end) {
        const int64_t ahead = unique_rows_[u + 6] * width;
        for (int64_t w = 0; w < width; w += 16) {
          __builtin_prefetch(weights + ahead + w, 1);
          if (m) __builtin_prefetch(m + ahead + w, 1);
          if (per_number) __builtin_prefetch(v + ahead + w, 1);
        }
        if (!per_number && v) __builtin_prefetch(v + unique_rows_[u + 6], 1);
      }
      const float* grad = grads + u * width;
      float* weight = weights + at_number;
      if (config_.optimizer == "adam") {
        kernels::adam(width, adam, scale, grad, weight, m + at_number, v + at_number);
      } else if (config_.optimizer == "adagrad") {
        for (int64_t w = 0; w < width; ++w) {
          const float g = grad[w] * scale;
          v[at_number + w] += g * g;
          weight[w] -= rate * g / (std::sqrt(v[at_number + w]) + epsilon);
        }
      } else if (config_.optimizer == "rowwise_adagrad") {
        float mean_square = 0;
        for (int64_t w = 0; w < width; ++w) mean_square += grad[w] * scale * grad[w] * scale;
        float& state = v[unique_rows_[u]];
        state += mean_square / static_cast<float>(width);
        kernels::axpy(width, -rate * scale / (std::sqrt(state) + epsilon), grad, weight);
      } else {
        kernels::axpy(width, -rate * scale, grad, weight);
      }
    }
  });
}

std::vector<std::pair<std::string, at::Tensor>> EmbeddingStore::state(bool optimizer_state) const {
  std::vector<std::pair<std::string, at::Tensor>> tensors = {{"embedding.weights", weights_}};
  if (optimizer_state && m_.defined()) tensors.emplace_back("embedding.m", m_);
  if (optimizer_state && v_.defined()) tensors.emplace_back("embedding.v", v_);
  return tensors;
}

}  // namespace ektm
