// How fast `ektm prepare` takes in raw files: simulated logs as CSV, CSV.gz and Parquet, with one thread and with two.
//
// Every measurement runs in a process of its own, so that peak memory is that of the run alone. MB are 10^6 bytes of the CSV text
// of the same rows, whatever the format. A CPU second counts all threads.
#include <arrow/csv/api.h>
#include <arrow/io/compressed.h>
#include <arrow/io/file.h>
#include <arrow/util/compression.h>
#include <parquet/arrow/reader.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <numeric>

#include "base/error.h"
#include "base/files.h"
#include "base/log.h"
#include "base/memory.h"
#include "data/arrow_check.h"
#include "data/prepare.h"
#include "metrics/text_table.h"
#include "sim/logs.h"

namespace ektm {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr const char* kSplits[] = {"train", "valid", "test"};

class TemporaryFolder {
 public:
  explicit TemporaryFolder(const fs::path& parent) {
    std::string name = (parent / "ektm-bench-XXXXXX").string();
    if (!mkdtemp(name.data())) fail(ErrorKind::Io, parent.string(), "no folder can be made here. Name another by --folder.");
    path_ = name;
  }
  ~TemporaryFolder() {
    std::error_code code;
    fs::remove_all(path_, code);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  fs::path operator/(const std::string& name) const { return path_ / name; }

 private:
  fs::path path_;
};

double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  auto seconds = [](const timeval& time) { return static_cast<double>(time.tv_sec) + 1e-6 * static_cast<double>(time.tv_usec); };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

// What `work` returns, with "wall" and "cpu" seconds and "peak_rss" bytes of its process.
Json in_child(const std::function<Json()>& work) {
  int ends[2];
  if (pipe(ends) != 0) fail(ErrorKind::Io, "pipe", "cannot be made.");
  const pid_t child = fork();
  if (child < 0) fail(ErrorKind::Io, "fork", "no process can be started.");
  if (child == 0) {
    std::signal(SIGINT, SIG_DFL);
    close(ends[0]);
    int code = 0;
    try {
      const auto start = std::chrono::steady_clock::now();
      const double cpu_start = cpu_seconds();
      Json result = work();
      result["cpu"] = cpu_seconds() - cpu_start;
      result["wall"] = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      rusage usage{};
      getrusage(RUSAGE_SELF, &usage);
      result["peak_rss"] = int64_t{1024} * usage.ru_maxrss;
      const std::string text = result.dump();
      if (write(ends[1], text.data(), text.size()) != static_cast<ssize_t>(text.size())) code = 1;
    } catch (const std::exception& error) {
      std::fprintf(stderr, "bench_ingest: %s\n", error.what());
      code = 1;
    }
    _exit(code);
  }
  close(ends[1]);
  std::string text;
  char buffer[4096];
  for (ssize_t count; (count = read(ends[0], buffer, sizeof buffer)) > 0;) text.append(buffer, static_cast<size_t>(count));
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  if (status != 0) fail(ErrorKind::Internal, "bench_ingest", "a measurement failed or was stopped.");
  return Json::parse(text);
}

void compress(const fs::path& from, const fs::path& to) {
  auto source = checked_io(arrow::io::ReadableFile::Open(from.string()), from.string());
  auto sink = checked_io(arrow::io::FileOutputStream::Open(to.string()), to.string());
  constexpr int kLevel = 6;  // as gzip
  auto codec = checked_io(arrow::util::Codec::Create(arrow::Compression::GZIP, kLevel), to.string());
  auto stream = checked_io(arrow::io::CompressedOutputStream::Make(codec.get(), sink), to.string());
  for (;;) {
    auto piece = checked_io(source->Read(1 << 20), from.string());
    if (piece->size() == 0) break;
    checked_io(stream->Write(piece), to.string());
  }
  checked_io(stream->Close(), to.string());
}

Json generate(const TemporaryFolder& folder, int64_t rows) {
  SimulationConfig config;
  config.rows = rows;
  for (const char* format : {"csv", "parquet"}) {
    config.format = format;
    write_logs(config, folder / format);
  }
  fs::create_directory(folder / "csv.gz");
  fs::copy_file(folder / "csv/schema.yaml", folder / "csv.gz/schema.yaml");
  for (const char* split : kSplits)
    compress(folder / fmt::format("csv/{}.csv", split), folder / fmt::format("csv.gz/{}.csv.gz", split));
  return Json::object();
}

Json measure_prepare(const TemporaryFolder& folder, const std::string& format, int64_t threads) {
  PrepareConfig config;
  config.schema = folder / (format + "/schema.yaml");
  const std::pair<RawInput*, const char*> inputs[] = {
      {&config.train, "train"}, {&config.valid, "valid"}, {&config.test, "test"}};
  for (auto [input, split] : inputs) input->files = {(folder / fmt::format("{}/{}.{}", format, split, format)).string()};
  config.output = folder / "encoded";
  config.force = true;
  config.threads = threads;
  const PrepareSummary summary = prepare(config);
  int64_t rows = 0;
  for (const auto& split : summary.splits) rows += split.counts.rows;
  const auto& parts = summary.cpu_seconds;
  return {{"rows", rows},
          {"parts",
           {{"read", parts.read},
            {"fit", parts.fit},
            {"encode", parts.encode},
            {"write", parts.write},
            {"leak_check", parts.leak_check}}}};
}

// What bounds prepare: the same train file by readers alone, in one thread.
Json read_all(arrow::RecordBatchReader& reader, const fs::path& file) {
  int64_t rows = 0;
  for (std::shared_ptr<arrow::RecordBatch> batch;;) {
    checked_io(reader.ReadNext(&batch), file.string());
    if (!batch) break;
    rows += batch->num_rows();
  }
  return {{"rows", rows}};
}

Json read_by_arrow_csv(const fs::path& file) {
  auto source = checked_io(arrow::io::ReadableFile::Open(file.string()), file.string());
  auto read = arrow::csv::ReadOptions::Defaults();
  read.use_threads = false;
  auto parse = arrow::csv::ParseOptions::Defaults();
  parse.newlines_in_values = true;
  auto convert = arrow::csv::ConvertOptions::Defaults();
  convert.default_column_type = arrow::utf8();
  convert.check_utf8 = false;
  auto reader =
      checked_io(arrow::csv::StreamingReader::Make(arrow::io::default_io_context(), source, read, parse, convert), file.string());
  return read_all(*reader, file);
}

Json read_by_arrow_parquet(const fs::path& file) {
  auto source = checked_io(arrow::io::ReadableFile::Open(file.string()), file.string());
  auto reader = checked_io(parquet::arrow::OpenFile(source, arrow::default_memory_pool()), file.string());
  reader->set_use_threads(false);
  auto batches = checked_io(reader->GetRecordBatchReader(), file.string());
  return read_all(*batches, file);
}

// The columns that prepare needs, as texts, no more.
Json read_by_raw_reader(const fs::path& folder, const fs::path& file) {
  const Schema schema = load_schema(folder / "schema.yaml");
  RawReader reader({{file.string()}}, schema, needed_columns(schema), {});
  int64_t rows = 0;
  for (RawChunk chunk; reader.next(chunk);) rows += chunk.rows();
  return {{"rows", rows}};
}

// Bytes a second of sums over memory that no cache holds.
Json read_memory() {
  std::vector<uint64_t> words(32 << 20, 1);
  constexpr int kRounds = 4;
  const double start = cpu_seconds();
  uint64_t sum = 0;
  for (int round = 0; round < kRounds; ++round) sum = std::accumulate(words.begin(), words.end(), sum);
  return {{"sum", sum}, {"mb_a_second", kRounds * 8e-6 * static_cast<double>(words.size()) / (cpu_seconds() - start)}};
}

std::string whole(double value) { return with_commas(static_cast<int64_t>(value)); }

constexpr auto kLeft = TextTable::Align::Left, kRight = TextTable::Align::Right;

void run(int64_t rows, int64_t repeats, const fs::path& parent) {
  const TemporaryFolder folder(parent);
  in_child([&] { return generate(folder, rows); });
  int64_t csv_bytes = 0;
  for (const char* split : kSplits) csv_bytes += static_cast<int64_t>(fs::file_size(folder / fmt::format("csv/{}.csv", split)));
  const double megabytes = 1e-6 * static_cast<double>(csv_bytes);
  const double train_megabytes = 1e-6 * static_cast<double>(fs::file_size(folder / "csv/train.csv"));
  const int64_t columns = [&] {
    std::string header = read_file(folder / "csv/valid.csv");
    header.resize(header.find('\n'));
    return 1 + std::count(header.begin(), header.end(), ',');
  }();
  std::printf("%s rows, %lld columns, %.0f MB of CSV\n\n", with_commas(rows).c_str(), static_cast<long long>(columns), megabytes);

  // Alternating, so that other load on the machine meets all alike; of the repeats the one with the median CPU time counts.
  struct Case {
    std::string format;
    int64_t threads;
    std::vector<Json> results;
  };
  std::vector<Case> cases;
  for (const char* format : {"csv", "csv.gz", "parquet"})
    for (int64_t threads : {1, 2}) cases.push_back({format, threads, {}});
  for (int64_t i = 0; i < repeats; ++i)
    for (auto& item : cases)
      item.results.push_back(in_child([&] { return measure_prepare(folder, item.format, item.threads); }));

  Json json = {{"bench", "ingest"}, {"rows", rows}, {"columns", columns}, {"csv_bytes", csv_bytes}, {"prepare", Json::array()}};
  TextTable table({kLeft, kRight, kRight, kRight, kRight, kRight, kRight, kRight, kRight, kRight, kRight, kRight});
  table.row({"prepare", "threads", "MB/s wall", "MB/CPU s", "rows/s", "cells/s", "peak MB", "CPU s: read", "fit", "encode",
             "write", "leaks"});
  table.line("");
  for (auto& item : cases) {
    auto& results = item.results;
    std::sort(results.begin(), results.end(), [](const Json& a, const Json& b) { return a["cpu"] < b["cpu"]; });
    Json result = results[results.size() / 2];
    const double wall = result["wall"], cpu = result["cpu"], count = result["rows"];
    std::vector<std::string> cells = {item.format,
                                      std::to_string(item.threads),
                                      whole(megabytes / wall),
                                      whole(megabytes / cpu),
                                      whole(count / wall),
                                      whole(count * static_cast<double>(columns) / wall),
                                      whole(1e-6 * result["peak_rss"].get<double>())};
    for (const char* part : {"read", "fit", "encode", "write", "leak_check"})
      cells.push_back(fmt::format("{:.2f}", result["parts"][part].get<double>()));
    table.row(cells);
    result["format"] = item.format;
    result["threads"] = item.threads;
    json["prepare"].push_back(result);
  }
  std::printf("%s\n", table.to_string().c_str());

  TextTable bounds({kLeft, kRight});
  bounds.row({"reference, one thread", "MB/CPU s"});
  bounds.line("");
  auto reference = [&](const char* name, const std::function<Json()>& work) {
    const double speed = train_megabytes / in_child(work)["cpu"].get<double>();
    bounds.row({name, whole(speed)});
    json["references"][name] = speed;
  };
  reference("RawReader alone, CSV", [&] { return read_by_raw_reader(folder / "csv", folder / "csv/train.csv"); });
  reference("RawReader alone, CSV.gz", [&] { return read_by_raw_reader(folder / "csv.gz", folder / "csv.gz/train.csv.gz"); });
  reference("RawReader alone, Parquet", [&] { return read_by_raw_reader(folder / "parquet", folder / "parquet/train.parquet"); });
  reference("Arrow's CSV reader alone", [&] { return read_by_arrow_csv(folder / "csv/train.csv"); });
  reference("Arrow's Parquet reader alone", [&] { return read_by_arrow_parquet(folder / "parquet/train.parquet"); });
  const double memory = in_child(read_memory)["mb_a_second"];
  bounds.row({"memory, sums", whole(memory)});
  json["references"]["memory, sums"] = memory;
  std::printf("%s\n%s\n", bounds.to_string().c_str(), json.dump().c_str());
}

}  // namespace
}  // namespace ektm

int main(int argc, char** argv) {
  ektm::keep_freed_memory();  // as the program ektm does
  CLI::App app{"Speed of `ektm prepare` on simulated logs as CSV, CSV.gz and Parquet, in MB of the CSV text"};
  int64_t rows = 1'400'000, repeats = 3;
  std::string folder = std::filesystem::temp_directory_path();
  bool is_short = false;
  app.add_option("--rows", rows, "of all splits; 230 bytes of CSV each")
      ->default_str("1400000")
      ->check(CLI::Range(10000, 1 << 30));
  app.add_option("--repeats", repeats, "runs of each case; the median counts")->default_str("3")->check(CLI::Range(1, 100));
  app.add_option("--folder", folder, "a folder of its own is made in this one, and removed")->default_str(folder);
  app.add_flag("--short", is_short, "45,000 rows, one run each: only to see that it works");
  app.footer("Ends with a line of JSON.\nExample:\n  build/bin/bench_ingest --rows 2000000 --repeats 5");
  CLI11_PARSE(app, argc, argv);
  if (is_short) rows = 45'000, repeats = 1;
  std::signal(SIGINT, SIG_IGN);  // it ends the measurement, a child; the folder is removed then
  ektm::set_quiet(true);
  try {
    ektm::run(rows, repeats, folder);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_ingest: %s\n", error.what());
    return 1;
  }
  return 0;
}
