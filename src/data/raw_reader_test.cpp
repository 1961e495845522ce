#include "data/raw_reader.h"

#include <arrow/csv/api.h>
#include <arrow/io/compressed.h>
#include <arrow/io/file.h>
#include <arrow/ipc/api.h>
#include <arrow/util/compression.h>
#include <gtest/gtest.h>
#include <parquet/arrow/writer.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <limits>

#include "base/error.h"
#include "base/files.h"
#include "base/random.h"
#include "data/number_encoding.h"

namespace ektm {
namespace {

namespace fs = std::filesystem;
using Strings = std::vector<std::string>;
using Rows = std::vector<Strings>;  // "~" = missing

template <class T>
T ok(arrow::Result<T> result) {
  if (!result.ok()) throw std::runtime_error(result.status().ToString());
  return std::move(result).ValueUnsafe();
}
void ok(const arrow::Status& status) {
  if (!status.ok()) throw std::runtime_error(status.ToString());
}

Strings elements_of(CellReader& cells, int64_t row, const std::string& separator = ",") {
  std::vector<std::string_view> elements = {"left", "over", "from", "before"};
  std::vector<size_t> ends = {7, 7};
  cells.elements(row, 1, separator, elements, ends);
  EXPECT_EQ(ends, std::vector<size_t>{elements.size()});
  return Strings(elements.begin(), elements.end());
}

template <class Builder, class T>
std::shared_ptr<arrow::Array> array_of(Builder& builder, const std::vector<std::optional<T>>& values) {
  for (const auto& value : values) ok(value ? builder.Append(*value) : builder.AppendNull());
  return ok(builder.Finish());
}
template <class Builder, class T>
std::shared_ptr<arrow::Array> array_of(const std::vector<std::optional<T>>& values) {
  Builder builder;
  return array_of(builder, values);
}
std::shared_ptr<arrow::Array> texts(const std::vector<std::optional<std::string>>& values) {
  return array_of<arrow::StringBuilder>(values);
}
std::shared_ptr<arrow::Array> int64s(const std::vector<std::optional<int64_t>>& values) {
  return array_of<arrow::Int64Builder>(values);
}

std::shared_ptr<arrow::Table> table_of(const std::vector<std::pair<std::string, std::shared_ptr<arrow::Array>>>& columns) {
  arrow::FieldVector fields;
  arrow::ArrayVector arrays;
  for (const auto& [name, array] : columns) {
    fields.push_back(arrow::field(name, array->type()));
    arrays.push_back(array);
  }
  return arrow::Table::Make(arrow::schema(fields), arrays);
}

class RawReaderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::temp_directory_path() / fmt::format("ektm_raw_reader_test_{}_{}", getpid(), ++folders_);
    fs::create_directories(folder_);
    schema_.folder = folder_;
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string path(const std::string& name) const { return (folder_ / name).string(); }

  std::string write(const std::string& name, const std::string& content) {
    fs::create_directories(fs::path(path(name)).parent_path());
    fs::remove(path(name));  // file systems flush a file that is truncated and written again
    std::ofstream(path(name), std::ios::binary) << content;
    return path(name);
  }
  std::string write_compressed(const std::string& name, const std::string& content, arrow::Compression::type compression) {
    auto codec = ok(arrow::util::Codec::Create(compression));
    auto stream = ok(arrow::io::CompressedOutputStream::Make(codec.get(), ok(arrow::io::FileOutputStream::Open(path(name)))));
    ok(stream->Write(content));
    ok(stream->Close());
    return path(name);
  }
  std::string write_parquet(const std::string& name, const arrow::Table& table, int64_t group_rows = 1 << 20,
                            bool checksums = true) {
    auto arrow_properties = parquet::ArrowWriterProperties::Builder().store_schema()->build();
    parquet::WriterProperties::Builder builder;
    if (checksums) builder.enable_page_checksum();
    auto properties = builder.build();
    ok(parquet::arrow::WriteTable(table, arrow::default_memory_pool(), ok(arrow::io::FileOutputStream::Open(path(name))),
                                  group_rows, properties, arrow_properties));
    return path(name);
  }
  std::string write_arrow(const std::string& name, const arrow::Table& table, bool stream, int64_t batch_rows = 1 << 20) {
    auto out = ok(arrow::io::FileOutputStream::Open(path(name)));
    auto writer =
        ok(stream ? arrow::ipc::MakeStreamWriter(out, table.schema()) : arrow::ipc::MakeFileWriter(out, table.schema()));
    ok(writer->WriteTable(table, batch_rows));
    ok(writer->Close());
    ok(out->Close());
    return path(name);
  }

  static Rows rows_of(const RawChunk& chunk, const Schema& schema) {
    Rows rows(chunk.rows());
    for (int c = 0; c < chunk.columns->num_columns(); ++c) {
      CellReader reader(chunk, c, schema);
      for (int64_t i = 0; i < chunk.rows(); ++i) {
        Cell cell = reader.cell(i);
        rows[i].push_back(cell.missing ? "~" : std::string(cell.text));
      }
    }
    return rows;
  }

  Rows read(const Strings& files, const Strings& columns, RawReader::Options options = {}) {
    RawReader reader({files}, schema_, columns, options);
    Rows all;
    RawChunk chunk;
    while (reader.next(chunk)) {
      EXPECT_GT(chunk.rows(), 0);
      EXPECT_LE(reader.read_bytes(), reader.total_bytes());
      for (auto& row : rows_of(chunk, schema_)) all.push_back(std::move(row));
    }
    EXPECT_EQ(reader.read_bytes(), reader.total_bytes());
    EXPECT_FALSE(reader.next(chunk));
    unmatched_ = reader.unmatched_rows();
    bad_rows_ = reader.bad_rows();
    return all;
  }

  Error error_of(const Strings& files, const Strings& columns, RawReader::Options options = {}) {
    try {
      read(files, columns, options);
    } catch (const Error& error) {
      return error;
    }
    ADD_FAILURE() << "no error";
    return Error(ErrorKind::Internal, "", "");
  }
  void expect_error(const Error& error, ErrorKind kind, const std::string& where, const Strings& parts) {
    EXPECT_EQ(error.kind(), kind) << error.what();
    EXPECT_EQ(error.where(), where) << error.what();
    for (const auto& part : parts)
      EXPECT_NE(error.message().find(part), std::string::npos) << "lacks '" << part << "': " << error.what();
  }

  fs::path folder_;
  Schema schema_;
  std::vector<int64_t> unmatched_;
  int64_t bad_rows_ = 0;
  static inline int folders_ = 0;
};

// ------------------------------------------------------------------------------------------------------------------- CSV

TEST_F(RawReaderTest, CsvCellsAreTextsAsTheyStandInTheFile) {
  std::string file = write("a.csv", "a,b,c\n1,007,x\n 2 ,1e3,\"q,\"\"r\"\"\"\n3,,\"two\nlines\"\n4,NA,\"\"\n");
  EXPECT_EQ(read({file}, {"c", "a", "b"}),
            (Rows{{"x", "1", "007"}, {"q,\"r\"", " 2 ", "1e3"}, {"two\nlines", "3", "~"}, {"~", "4", "~"}}));
  EXPECT_EQ(read({file}, {"b"}), (Rows{{"007"}, {"1e3"}, {"~"}, {"~"}}));
}

TEST_F(RawReaderTest, LineEndsBomBlankLinesAndAMissingLastNewline) {
  Rows expected = {{"1", "x"}, {"2", "y"}};
  for (const char* content : {"a,b\n1,x\n2,y\n", "a,b\n1,x\n2,y", "a,b\r\n1,x\r\n2,y\r\n",
                              "\xEF\xBB\xBF"
                              "a,b\r\n1,x\r\n2,y",
                              "\n\na,b\n\n1,x\n\n\n2,y\n\n", "\"a\",\"b\"\n\"1\",\"x\"\n\"2\",\"y\"\n", "a,b\r1,x\r2,y\r"})
    EXPECT_EQ(read({write("a.csv", content)}, {"a", "b"}), expected) << content;
}

TEST_F(RawReaderTest, MissingTextsComeFromTheSchema) {
  std::string file = write("a.csv", "a\nNA\nna\nnull\n-1\n999\nx\n");
  EXPECT_EQ(read({file}, {"a"}), (Rows{{"~"}, {"na"}, {"~"}, {"-1"}, {"999"}, {"x"}}));
  schema_.missing = {"-1", "999"};
  EXPECT_EQ(read({file}, {"a"}), (Rows{{"NA"}, {"na"}, {"null"}, {"~"}, {"~"}, {"x"}}));
}

TEST_F(RawReaderTest, CompressedCsvReadsAsThePlainOne) {
  std::string content = "a,b\n";
  for (int i = 0; i < 5000; ++i) content += fmt::format("{},{}\n", i, mix64(i));
  Rows plain = read({write("a.csv", content)}, {"a", "b"});
  ASSERT_EQ(plain.size(), 5000u);
  RawReader::Options small;
  small.chunk_bytes = 4096;
  for (auto [name, compression] : {std::pair{"a.csv.gz", arrow::Compression::GZIP},
                                   {"a.csv.zst", arrow::Compression::ZSTD},
                                   {"a.csv.bz2", arrow::Compression::BZ2}}) {
    std::string file = write_compressed(name, content, compression);
    EXPECT_EQ(read({file}, {"a", "b"}), plain) << name;
    EXPECT_EQ(read({file}, {"a", "b"}, small), plain) << name;
  }
  // Concatenated gzip files are one gzip file.
  std::string tail = "5000,x\n5001,y\n";
  std::string both = read_file(path("a.csv.gz")) + read_file(write_compressed("tail.csv.gz", tail, arrow::Compression::GZIP));
  plain.push_back({"5000", "x"});
  plain.push_back({"5001", "y"});
  EXPECT_EQ(read({write("both.csv.gz", both)}, {"a", "b"}), plain);
}

TEST_F(RawReaderTest, AHeaderAloneHasNoRows) {
  EXPECT_EQ(read({write("a.csv", "a,b\n")}, {"a"}), Rows{});
  EXPECT_EQ(read({write("a.csv", "a,b")}, {"a"}), Rows{});
  EXPECT_EQ(read({write("a.csv", "a,b\n\n\n")}, {"a"}), Rows{});
  EXPECT_EQ(read({path("a.csv"), write("b.csv", "a\n1\n"), path("a.csv")}, {"a"}), (Rows{{"1"}}));
}

TEST_F(RawReaderTest, PlacesGiveRowAndLine) {
  // Rows and lines part at the blank line and at the quoted line end.
  std::string file = write("a.csv", "a,b\n1,x\n\n2,\"y\n\"\"z\"\r\n3,w\r\n");
  RawReader reader({{file}}, schema_, {"a", "b"}, {});
  RawChunk chunk;
  ASSERT_TRUE(reader.next(chunk));
  ASSERT_EQ(chunk.rows(), 3);
  EXPECT_EQ(chunk.where(0, "a"), file + ", row 1 (line 2), column a");
  EXPECT_EQ(chunk.where(1, "b"), file + ", row 2 (line 4), column b");
  EXPECT_EQ(chunk.where(2, "b"), file + ", row 3 (line 6), column b");
}

// ---------------------------------------------------------------------------------------------------------- bad CSV files

TEST_F(RawReaderTest, FilesThatAreNotThere) {
  expect_error(error_of({path("no.csv")}, {"a"}), ErrorKind::Io, path("no.csv"), {"does not exist", "Check the path"});
  expect_error(error_of({}, {"a"}), ErrorKind::Config, "input files", {"at least one"});
  expect_error(error_of({write("a.txt", "a\n1\n")}, {"a"}), ErrorKind::Io, path("a.txt"),
               {"no known ending", ".csv", ".parquet", "Rename"});
}

TEST_F(RawReaderTest, UnreadableFile) {
  std::string file = write("a.csv", "a\n1\n");
  fs::permissions(file, fs::perms::none);
  if (access(file.c_str(), R_OK) == 0)
    fs::remove(file), fs::create_symlink(file, file);  // root reads all; a link to itself nobody can
  EXPECT_EQ(error_of({file}, {"a"}).kind(), ErrorKind::Io);
}

TEST_F(RawReaderTest, EmptyFile) {
  for (const char* name : {"a.csv", "a.arrow", "a.csv.gz"}) {
    Error error = error_of({write(name, "")}, {"a"});
    EXPECT_EQ(error.kind(), ErrorKind::Data);
    EXPECT_EQ(error.where(), path(name));
    EXPECT_NE(error.message().find("empty"), std::string::npos) << error.what();
  }
  expect_error(error_of({write("b.csv", "\n\n")}, {"a"}), ErrorKind::Data, path("b.csv"), {"blank lines", "header"});
  EXPECT_EQ(error_of({write("a.parquet", "")}, {"a"}).kind(), ErrorKind::Data);
}

TEST_F(RawReaderTest, HeaderLacksAColumnOrHasItTwice) {
  std::string file = write("a.csv", "user_id,video,video\n1,2,3\n");
  expect_error(error_of({file}, {"user_id", "usr_id"}), ErrorKind::Data, file,
               {"lacks the column 'usr_id'", "Did you mean 'user_id'?"});
  expect_error(error_of({file}, {"something_else"}), ErrorKind::Data, file, {"Its columns are: user_id, video, video"});
  expect_error(error_of({file}, {"video"}), ErrorKind::Data, file, {"'video'", "2 times", "expected once"});
  EXPECT_EQ(read({file}, {"user_id"}), (Rows{{"1"}}));  // harmless when it is not needed
}

TEST_F(RawReaderTest, RaggedRows) {
  std::string file = write("a.csv", "a,b,c\n1,2,3\n4,5\n6,7,8\n1,2,3,4\n9,9,9\n");
  expect_error(error_of({file}, {"a"}), ErrorKind::Data, file + ", row 2 (line 3)",
               {"found 2 columns; expected 3", "4,5", "max_bad_rows"});
  schema_.max_bad_rows = 1;
  expect_error(error_of({file}, {"a"}), ErrorKind::Data, file + ", row 4 (line 5)",
               {"found 4 columns; expected 3", "1 rows were skipped already"});
  schema_.max_bad_rows = 2;
  EXPECT_EQ(read({file}, {"a"}), (Rows{{"1"}, {"6"}, {"9"}}));
  EXPECT_EQ(bad_rows_, 2);
  // The limit holds over all files of the input.
  EXPECT_EQ(error_of({file, file}, {"a"}).where(), file + ", row 2 (line 3)");
  schema_.max_bad_rows = 4;
  EXPECT_EQ(read({file, file}, {"a"}).size(), 6u);
  EXPECT_EQ(bad_rows_, 4);
}

TEST_F(RawReaderTest, RowNumbersCountSkippedRows) {
  std::string content = "number,x\n", expected;
  for (int i = 1; i <= 3000; ++i)
    content += i % 7 == 0 ? fmt::format("{}\n", i) : fmt::format("{},{}\n", i, std::string(i % 40, 'x'));
  std::string file = write("a.csv", content);
  schema_.max_bad_rows = 3000;
  for (int64_t chunk_bytes : {100, 1000, 1 << 20}) {
    RawReader::Options options;
    options.chunk_bytes = chunk_bytes;
    RawReader reader({{file}}, schema_, {"number"}, options);
    RawChunk chunk;
    int64_t rows = 0;
    while (reader.next(chunk)) {
      Rows cells = rows_of(chunk, schema_);
      for (int64_t i = 0; i < chunk.rows(); ++i) EXPECT_EQ(std::to_string(chunk.file_row(i)), cells[i][0]);
      EXPECT_EQ(chunk.where(0, "x"),
                fmt::format("{}, row {} (line {}), column x", file, cells[0][0], std::stoi(cells[0][0]) + 1));
      rows += chunk.rows();
    }
    EXPECT_EQ(rows, 3000 - 3000 / 7);
    EXPECT_EQ(reader.bad_rows(), 3000 / 7);
  }
}

TEST_F(RawReaderTest, InvalidUtf8NamesTheCell) {
  std::string file = write("a.csv",
                           "a,b\n1,gut\n2,m\xfc"
                           "de\n");
  expect_error(error_of({file}, {"a", "b"}), ErrorKind::Data, file + ", row 2 (line 3), column b", {"UTF-8", "iconv"});
  EXPECT_EQ(read({file}, {"a"}).size(), 2u);  // a column that is not needed is not looked at
  // Each cell by itself: neighbours that would be valid together are not.
  file = write("b.csv", "a\n\xc3\n\xa9\n");
  EXPECT_EQ(error_of({file}, {"a"}).where(), file + ", row 1 (line 2), column a");
  file = write("c.csv", "a\n\xc3\xa9t\xc3\xa9\n\xf0\x9f\x98\x80\n");
  EXPECT_EQ(read({file}, {"a"}), (Rows{{"\xc3\xa9t\xc3\xa9"}, {"\xf0\x9f\x98\x80"}}));
  for (const char* bad :
       {"\xc0\xaf", "\xed\xa0\x80", "\xf5\x80\x80\x80", "\xe2\x82", "\x80"})  // overlong, surrogate, too large, cut off, stray
    EXPECT_EQ(error_of({write("d.csv", std::string("a\nx\n") + bad + "\n")}, {"a"}).where(),
              path("d.csv") + ", row 2 (line 3), column a");
  expect_error(error_of({write("e.csv",
                               "a,gr\xf6\xdf"
                               "e\n1,2\n")},
                        {"a"}),
               ErrorKind::Data, path("e.csv") + ", line 1", {"header", "UTF-8"});
}

TEST_F(RawReaderTest, OtherFormatsUnderACsvName) {
  std::string gz = read_file(write_compressed("a.csv.gz", "a\n1\n", arrow::Compression::GZIP));
  auto table = table_of({{"a", int64s({1})}});
  expect_error(error_of({write("gz.csv", gz)}, {"a"}), ErrorKind::Data, path("gz.csv"), {"gzip", ".csv.gz"});
  expect_error(error_of({write("p.csv", read_file(write_parquet("p.parquet", *table)))}, {"a"}), ErrorKind::Data, path("p.csv"),
               {"Parquet"});
  expect_error(error_of({write("i.csv", read_file(write_arrow("i.arrow", *table, false)))}, {"a"}), ErrorKind::Data,
               path("i.csv"), {"Arrow"});
  expect_error(error_of({write("u.csv", std::string("\xff\xfe"
                                                    "a\0\n\0",
                                                    6))},
                        {"a"}),
               ErrorKind::Data, path("u.csv"), {"UTF-16", "iconv"});
  EXPECT_EQ(error_of({write("p2.parquet", "a,b\n1,2\n")}, {"a"}).kind(), ErrorKind::Data);
  EXPECT_EQ(error_of({write("i2.arrow", "a,b\n1,2\n")}, {"a"}).kind(), ErrorKind::Data);
  EXPECT_EQ(error_of({write("g2.csv.gz", "a,b\n1,2\n")}, {"a"}).kind(), ErrorKind::Data);
}

TEST_F(RawReaderTest, UnclosedQuote) {
  std::string content = "a,b\n1,x\n2,\"open\n";
  for (int i = 0; i < 1000; ++i) content += "3,yyyyyyyyyyyyyyy\n";
  RawReader::Options small;
  small.chunk_bytes = 4096;
  Error error = error_of({write("a.csv", content)}, {"a", "b"}, small);
  EXPECT_EQ(error.kind(), ErrorKind::Data);
  EXPECT_NE(error.message().find("quote"), std::string::npos) << error.what();
  EXPECT_EQ(error_of({path("a.csv")}, {"a", "b"}).kind(), ErrorKind::Data);
  EXPECT_EQ(error_of({write("b.csv", "a,\"b\n1,2\n")}, {"a"}).kind(), ErrorKind::Data);
}

TEST_F(RawReaderTest, CutOffAndDamagedCompression) {
  std::string content = "a,b\n";  // a cut inside quotes is no open quote
  for (int i = 0; i < 2000; ++i) content += fmt::format("{},\"{}\"\n", i, mix64(i));
  for (auto [name, compression] : {std::pair{"a.csv.gz", arrow::Compression::GZIP},
                                   {"a.csv.zst", arrow::Compression::ZSTD},
                                   {"a.csv.bz2", arrow::Compression::BZ2}}) {
    std::string bytes = read_file(write_compressed(name, content, compression));
    std::vector<size_t> cuts = {
        1, 2, 5, 10, bytes.size() / 3, bytes.size() / 2, bytes.size() - 9, bytes.size() - 8, bytes.size() - 4, bytes.size() - 1};
    for (size_t cut : cuts) {
      Error error = error_of({write(std::string("cut_") + name, bytes.substr(0, cut))}, {"a", "b"});
      EXPECT_EQ(error.kind(), ErrorKind::Data) << error.what();
      EXPECT_NE(error.message().find("damaged or cut off"), std::string::npos)
          << name << " cut at " << cut << ": " << error.what();
    }
  }
  std::string bytes = read_file(path("a.csv.gz"));
  bytes[bytes.size() / 2] ^= 0x10;
  EXPECT_EQ(error_of({write("flipped.csv.gz", bytes)}, {"a", "b"}).kind(), ErrorKind::Data);
  bytes = read_file(path("a.csv.gz"));
  bytes[bytes.size() - 6] ^= 1;  // the checksum
  EXPECT_EQ(error_of({write("sum.csv.gz", bytes)}, {"a", "b"}).kind(), ErrorKind::Data);
}

// ------------------------------------------------------------------------------------------------------- Parquet and Arrow

TEST_F(RawReaderTest, SixtyFourBitNumbersAreExact) {
  int64_t low = std::numeric_limits<int64_t>::min(), high = std::numeric_limits<int64_t>::max();
  uint64_t top = std::numeric_limits<uint64_t>::max();
  auto table = table_of({{"i", int64s({low, high, 9007199254740993, std::nullopt})},
                         {"u", array_of<arrow::UInt64Builder, uint64_t>({0, top, top - 1, 9007199254740993})}});
  Rows expected = {{"-9223372036854775808", "0"},
                   {"9223372036854775807", "18446744073709551615"},
                   {"9007199254740993", "18446744073709551614"},
                   {"~", "9007199254740993"}};
  EXPECT_EQ(read({write_parquet("a.parquet", *table)}, {"i", "u"}), expected);
  EXPECT_EQ(read({write_arrow("a.arrow", *table, false)}, {"i", "u"}), expected);
  EXPECT_EQ(read({write_arrow("a.arrows", *table, true)}, {"i", "u"}), expected);
  std::string csv = "i,u\n";
  for (const auto& row : expected) csv += fmt::format("{},{}\n", row[0] == "~" ? "" : row[0], row[1]);
  EXPECT_EQ(read({write("a.csv", csv)}, {"i", "u"}), expected);
}

TEST_F(RawReaderTest, TypesBecomeText) {
  auto dictionary =
      ok(arrow::DictionaryArray::FromArrays(arrow::dictionary(arrow::int8(), arrow::utf8()),
                                            array_of<arrow::Int8Builder, int8_t>({1, 0, std::nullopt}), texts({"red", "blue"})));
  arrow::TimestampBuilder timestamps(arrow::timestamp(arrow::TimeUnit::MILLI), arrow::default_memory_pool());
  arrow::Decimal128Builder decimals(arrow::decimal128(20, 2), arrow::default_memory_pool());
  auto table = table_of({
      {"bool", array_of<arrow::BooleanBuilder, bool>({true, false, std::nullopt})},
      {"int8", array_of<arrow::Int8Builder, int8_t>({-128, 127, std::nullopt})},
      {"uint8", array_of<arrow::UInt8Builder, uint8_t>({0, 255, std::nullopt})},
      {"int16", array_of<arrow::Int16Builder, int16_t>({-32768, 32767, std::nullopt})},
      {"uint16", array_of<arrow::UInt16Builder, uint16_t>({0, 65535, std::nullopt})},
      {"int32", array_of<arrow::Int32Builder, int32_t>({-5, 5, std::nullopt})},
      {"uint32", array_of<arrow::UInt32Builder, uint32_t>({0, 4294967295u, std::nullopt})},
      {"float", array_of<arrow::FloatBuilder, float>({0.1f, -1e20f, std::numeric_limits<float>::quiet_NaN()})},
      {"double", array_of<arrow::DoubleBuilder, double>({0.1, 1.0 / 3, std::nullopt})},
      {"date", array_of<arrow::Date32Builder, int32_t>({0, 19000, std::nullopt})},
      {"time", array_of<arrow::TimestampBuilder, int64_t>(timestamps, {0, 1650812741436, std::nullopt})},
      {"decimal", array_of<arrow::Decimal128Builder, arrow::Decimal128>(
                      decimals, {arrow::Decimal128(12345), arrow::Decimal128(-7), std::nullopt})},
      {"binary", array_of<arrow::BinaryBuilder, std::string>({"x", "", std::nullopt})},
      {"large", array_of<arrow::LargeStringBuilder, std::string>({"x", "NA", std::nullopt})},
      {"dictionary", dictionary},
  });
  Strings columns = table->schema()->field_names();
  Rows expected = {{"1", "-128", "0", "-32768", "0", "-5", "0", "0.1", "0.1", "1970-01-01", "1970-01-01 00:00:00.000", "123.45",
                    "x", "x", "blue"},
                   {"0", "127", "255", "32767", "65535", "5", "4294967295", "-1e+20", "0.3333333333333333", "2022-01-08",
                    "2022-04-24 15:05:41.436", "-0.07", "~", "~", "red"},
                   {"~", "~", "~", "~", "~", "~", "~", "~", "~", "~", "~", "~", "~", "~", "~"}};
  EXPECT_EQ(read({write_parquet("a.parquet", *table)}, columns), expected);
  EXPECT_EQ(read({write_arrow("a.arrow", *table, false)}, columns), expected);
  EXPECT_EQ(read({write_arrow("a.feather", *table, true)}, columns), expected);

  RawReader reader({{path("a.parquet")}}, schema_, columns, {});
  RawChunk chunk;
  ASSERT_TRUE(reader.next(chunk));
  for (size_t c = 0; c < columns.size(); ++c)
    EXPECT_EQ(CellReader(chunk, static_cast<int>(c), schema_).is_float(), columns[c] == "float" || columns[c] == "double")
        << columns[c];
  EXPECT_EQ(chunk.where(1, "date"), path("a.parquet") + ", row 2, column date");  // no lines in Parquet
}

TEST_F(RawReaderTest, BlocksOfCellsEqualSingleCells) {
  auto floats = array_of<arrow::FloatBuilder, float>({1.5f, std::nullopt, 0.1f, std::nanf(""), -0.0f, 0.1f, 3e38f});
  auto doubles = array_of<arrow::DoubleBuilder, double>({0.1, 1e300, std::nullopt, -5.0, std::nan(""), 1.0 / 3, 2.0});
  auto table = table_of({{"text", texts({"a", std::nullopt, "", "NA", "1e3", "long enough to be no short text", "x"})},
                         {"whole", int64s({7, std::nullopt, INT64_MAX, INT64_MIN, 0, 9007199254740993, 1})},
                         {"float", floats},
                         {"double", doubles}});
  for (const auto& missing : {Strings{"", "NA"}, Strings{"", "NA", "7", "0.1"}}) {
    schema_.missing = missing;
    for (const auto& file : {write_parquet("a.parquet", *table), write_arrow("a.arrow", *table, false)}) {
      RawReader reader({{file}}, schema_, {"text", "whole", "float", "double"}, {});
      RawChunk chunk;
      ASSERT_TRUE(reader.next(chunk));
      for (int c = 0; c < 4; ++c) {
        CellReader cells(chunk, c, schema_);
        std::vector<Cell> block(5);
        cells.cells(2, 5, block.data());
        Strings block_texts;
        for (const Cell& cell : block) block_texts.push_back(cell.missing ? "~" : std::string(cell.text));
        std::vector<double> numbers(5);
        const bool has_numbers = cells.numbers(2, 5, numbers.data());
        EXPECT_EQ(has_numbers, c > 0 && missing.size() == 2) << c;
        for (int64_t i = 0; i < 5; ++i) {
          const Cell cell = cells.cell(2 + i);
          EXPECT_EQ(block_texts[i], cell.missing ? "~" : std::string(cell.text));
          if (!has_numbers) continue;
          EXPECT_EQ(std::isnan(numbers[i]), cell.missing);
          if (!cell.missing) EXPECT_EQ(numbers[i], parse_finite(cell.text).value()) << cell.text;
        }
      }
    }
  }
  // An infinite number is left to the texts, whose errors name it.
  auto infinite = table_of({{"x", array_of<arrow::DoubleBuilder, double>({1.0, HUGE_VAL})}});
  RawReader reader({{write_parquet("b.parquet", *infinite)}}, schema_, {"x"}, {});
  RawChunk chunk;
  ASSERT_TRUE(reader.next(chunk));
  double numbers[2];
  EXPECT_FALSE(CellReader(chunk, 0, schema_).numbers(0, 2, numbers));
}

TEST_F(RawReaderTest, UnsupportedTypesAreNamed) {
  auto child = std::make_shared<arrow::StructArray>(arrow::struct_({arrow::field("x", arrow::int64())}), 1,
                                                    arrow::ArrayVector{int64s({1})});
  auto table = table_of({{"s", child}, {"a", int64s({1})}});
  for (const auto& file : {write_parquet("a.parquet", *table), write_arrow("a.arrow", *table, false)}) {
    expect_error(error_of({file}, {"s"}), ErrorKind::Data, file + ", column s", {"struct", "expected text, numbers", "Convert"});
    EXPECT_EQ(read({file}, {"a"}), (Rows{{"1"}}));
  }
}

TEST_F(RawReaderTest, ListsAndSplitTexts) {
  auto values = std::make_shared<arrow::Int64Builder>();
  arrow::ListBuilder lists(arrow::default_memory_pool(), values);
  ok(lists.Append());
  ok(values->AppendValues({1, 2, 3}));
  ok(lists.AppendNull());
  ok(lists.Append());
  ok(lists.Append());
  ok(values->Append(7));
  ok(values->AppendNull());
  auto table = table_of({{"list", ok(lists.Finish())}, {"text", texts({"a,b,,NA,c", "", std::nullopt, "x"})}});
  std::vector<Strings> list_expected = {{"1", "2", "3"}, {}, {}, {"7"}}, text_expected = {{"a", "b", "c"}, {}, {}, {"x"}};
  for (int64_t chunk_bytes : {1, 1 << 20})
    for (const auto& file : {write_parquet("a.parquet", *table), write_arrow("a.arrow", *table, false)}) {
      RawReader::Options options;
      options.chunk_bytes = chunk_bytes;
      RawReader reader({{file}}, schema_, {"list", "text"}, options);
      RawChunk chunk;
      size_t row = 0;
      while (reader.next(chunk)) {
        CellReader list(chunk, 0, schema_), text(chunk, 1, schema_);
        EXPECT_TRUE(list.is_list());
        EXPECT_FALSE(list.is_float());
        EXPECT_FALSE(text.is_list());
        EXPECT_THROW(list.cell(0), Error);
        for (int64_t i = 0; i < chunk.rows(); ++i, ++row) {
          EXPECT_EQ(elements_of(list, i), list_expected[row]);
          EXPECT_EQ(elements_of(text, i), text_expected[row]);
        }
      }
      EXPECT_EQ(row, 4u);
    }
  RawReader reader({{write("a.csv", "t\na::b::c\nd\n::\n")}}, schema_, {"t"}, {});
  RawChunk chunk;
  ASSERT_TRUE(reader.next(chunk));
  CellReader cells(chunk, 0, schema_);
  EXPECT_EQ(elements_of(cells, 0, "::"), (Strings{"a", "b", "c"}));
  EXPECT_EQ(elements_of(cells, 2, "::"), Strings{});
}

TEST_F(RawReaderTest, InvalidUtf8InParquetAndArrow) {
  auto strings = table_of({{"b", texts({"fine", "\xff"})}});
  auto blobs = table_of({{"b", array_of<arrow::BinaryBuilder, std::string>({"fine", "\xff"})}});
  auto values = std::make_shared<arrow::StringBuilder>();
  arrow::ListBuilder builder(arrow::default_memory_pool(), values);
  ok(builder.Append());
  ok(values->Append("fine"));
  ok(builder.Append());
  ok(values->AppendValues({"fine", "\xff"}));
  auto lists = table_of({{"b", ok(builder.Finish())}});
  auto dictionaries = table_of(
      {{"b", ok(arrow::DictionaryArray::FromArrays(arrow::dictionary(arrow::int32(), arrow::utf8()),
                                                   array_of<arrow::Int32Builder, int32_t>({0, 1}), texts({"fine", "\xff"})))}});
  for (const auto& table : {strings, blobs, lists, dictionaries}) {
    std::string file = write_arrow("a.arrow", *table, false);
    expect_error(error_of({file}, {"b"}), ErrorKind::Data, file + ", row 2, column b", {"UTF-8"});
    file = write_parquet("a.parquet", *table);
    expect_error(error_of({file}, {"b"}), ErrorKind::Data, file + ", row 2, column b", {"UTF-8"});
  }
}

// A text column, and a list of texts, with few values among many rows: Parquet keeps them as dictionaries.
struct RepeatedTexts {
  std::vector<std::optional<std::string>> words;
  std::vector<Strings> lists;
  std::shared_ptr<arrow::Table> table;

  // `bad`: the row of a text that is not UTF-8.
  explicit RepeatedTexts(int rows, int bad = -1, int bad_list = -1) {
    Rng rng(9);
    auto values = std::make_shared<arrow::StringBuilder>();
    arrow::ListBuilder builder(arrow::default_memory_pool(), values);
    for (int i = 0; i < rows; ++i) {
      words.push_back(rng.below(6) == 0 ? std::nullopt : std::optional(fmt::format("word {}", rng.below(20))));
      if (i == bad) words.back() = "\xff";
      Strings& list = lists.emplace_back();
      ok(builder.Append());
      for (uint64_t k = 0, count = rng.below(4); k < count; ++k) list.push_back(fmt::format("e{}", rng.below(30)));
      if (i == bad_list) list.push_back("\xff");
      for (const auto& element : list) ok(values->Append(element));
    }
    table = table_of({{"word", texts(words)}, {"list", ok(builder.Finish())}});
  }
};

TEST_F(RawReaderTest, RepeatedTextsOfParquetAreDictionaries) {
  RepeatedTexts expected(5000);
  for (int64_t group_rows : {1700, 5000})
    for (int64_t chunk_bytes : {1000, 8 << 20}) {
      RawReader::Options options;
      options.chunk_bytes = chunk_bytes;
      RawReader reader({{write_parquet("a.parquet", *expected.table, group_rows)}}, schema_, {"list", "word"}, options);
      RawChunk chunk;
      size_t row = 0;
      while (reader.next(chunk)) {
        EXPECT_EQ(chunk.columns->column(1)->type_id(), arrow::Type::DICTIONARY);
        CellReader lists(chunk, 0, schema_), words(chunk, 1, schema_);
        EXPECT_EQ(lists.list_elements()->type_id(), arrow::Type::DICTIONARY);
        for (int64_t i = 0; i < chunk.rows(); ++i, ++row) {
          ASSERT_EQ(elements_of(lists, i), expected.lists[row]);
          const Cell cell = words.cell(i);
          ASSERT_EQ(cell.missing ? std::nullopt : std::optional(std::string(cell.text)), expected.words[row]);
        }
      }
      EXPECT_EQ(row, 5000u);
    }
}

TEST_F(RawReaderTest, InvalidUtf8InADictionaryNamesTheRow) {
  const std::string file = write_parquet("a.parquet", *RepeatedTexts(5000, 3210).table);
  expect_error(error_of({file}, {"word"}), ErrorKind::Data, file + ", row 3211, column word", {"UTF-8"});
  RawReader::Options options;
  options.chunk_bytes = 1000;  // the dictionary stands in the chunks before, too
  expect_error(error_of({file}, {"word"}, options), ErrorKind::Data, file + ", row 3211, column word", {"UTF-8"});
  const std::string lists = write_parquet("b.parquet", *RepeatedTexts(5000, -1, 4321).table);
  RawReader reader({{lists}}, schema_, {"list"}, options);
  RawChunk chunk;
  try {
    while (reader.next(chunk)) CellReader(chunk, 0, schema_);
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    expect_error(error, ErrorKind::Data, lists + ", row 4322, column list", {"UTF-8"});
  }
}

// What predict hands through keeps the type that it has in the file.
TEST_F(RawReaderTest, OwnColumnsOfParquetAreNoDictionaries) {
  RawReader::Options options;
  options.keep_own_columns = true;
  RawReader reader({{write_parquet("a.parquet", *RepeatedTexts(5000).table)}}, schema_, {"word"}, options);
  RawChunk chunk;
  ASSERT_TRUE(reader.next(chunk));
  EXPECT_EQ(chunk.own->column(0)->type_id(), arrow::Type::STRING);
}

TEST_F(RawReaderTest, CutOffParquetAndArrow) {
  std::vector<std::optional<int64_t>> numbers;
  std::vector<std::optional<std::string>> words;
  for (int i = 0; i < 500; ++i)
    numbers.push_back(static_cast<int64_t>(mix64(i) >> 1)), words.push_back(fmt::format("w{}", mix64(i)));
  auto table = table_of({{"n", int64s(numbers)}, {"w", texts(words)}});
  Strings files = {write_parquet("a.parquet", *table, 100), write_arrow("a.arrow", *table, false, 100),
                   write_arrow("a.arrows", *table, true, 100)};
  for (const auto& file : files) {
    std::string bytes = read_file(file), name = "cut_" + fs::path(file).filename().string();
    ASSERT_EQ(read({write(name, bytes)}, {"n", "w"}).size(), 500u);
    for (size_t cut = 1; cut < bytes.size(); cut += cut + 200 < bytes.size() ? 97 : 1) {
      Error error = error_of({write(name, bytes.substr(0, cut))}, {"n", "w"});
      EXPECT_EQ(error.kind(), ErrorKind::Data) << error.what();
      EXPECT_NE(std::string(error.what()).find("cut off"), std::string::npos)
          << name << " cut at " << cut << ": " << error.what();
    }
  }
}

// Damaged bytes give rows or an Error, never a crash or another exception; a page's checksum finds a flip in Parquet data.
TEST_F(RawReaderTest, FlippedBytesGiveRowsOrAnError) {
  std::vector<std::optional<int64_t>> numbers;
  std::vector<std::optional<std::string>> words;
  for (int i = 0; i < 50; ++i) numbers.push_back(i), words.push_back(fmt::format("w{}", i % 7));
  auto values = std::make_shared<arrow::StringBuilder>();
  arrow::ListBuilder lists(arrow::default_memory_pool(), values);
  for (int i = 0; i < 50; ++i) {
    ok(lists.Append());
    for (int k = 0; k < i % 3; ++k) ok(values->Append("e"));
  }
  auto table = table_of({{"n", int64s(numbers)}, {"w", texts(words)}, {"l", ok(lists.Finish())}});
  const RepeatedTexts repeated(300);  // as dictionaries, without checksums
  auto many = table_of({{"n", repeated.table->column(0)->chunk(0)},
                        {"w", repeated.table->column(0)->chunk(0)},
                        {"l", repeated.table->column(1)->chunk(0)}});
  Strings files = {write_parquet("a.parquet", *table, 20), write_arrow("a.arrow", *table, false, 20),
                   write_arrow("a.arrows", *table, true, 20), write_parquet("b.parquet", *many, 150, false),
                   write_compressed("a.csv.gz", "n,w,l\n1,2,3\n4,5,6\n", arrow::Compression::GZIP)};
  Rng rng(5);
  for (const auto& file : files) {
    const std::string bytes = read_file(file);
    int errors = 0;
    for (int trial = 0; trial < 400; ++trial) {
      std::string damaged = bytes;
      for (int flips = 0; flips <= trial % 3; ++flips)
        damaged[rng.below(damaged.size())] ^= static_cast<char>(1 + rng.below(255));
      std::string name = write("damaged_" + fs::path(file).filename().string(), damaged);
      try {
        RawReader reader({{name}}, schema_, {"n", "w", "l"}, {});
        RawChunk chunk;
        while (reader.next(chunk))
          for (int c = 0; c < 3; ++c) {
            CellReader cells(chunk, c, schema_);
            for (int64_t i = 0; i < chunk.rows(); ++i) elements_of(cells, i);
          }
      } catch (const Error& error) {
        EXPECT_EQ(error.kind(), ErrorKind::Data) << error.what();
        ++errors;
      }
    }
    EXPECT_GT(errors, 100) << file;
  }
}

// -------------------------------------------------------------------------------------------------------------- properties

struct SameTable {
  std::string csv = "id,word,count,side_key\n";
  std::shared_ptr<arrow::Table> table;
  Rows rows;  // id, word, count, side_key

  explicit SameTable(int count) {
    Rng rng(11);
    std::vector<std::optional<int64_t>> ids, keys;
    std::vector<std::optional<std::string>> words;
    std::vector<std::optional<uint64_t>> counts;
    for (int i = 0; i < count; ++i) {
      ids.push_back(i);
      words.push_back(rng.below(5) == 0 ? std::nullopt
                                        : std::optional(std::string(rng.below(30), 'a') + (rng.below(9) == 0 ? "\n\"," : "é")));
      counts.push_back(rng.below(7) == 0 ? std::nullopt : std::optional(rng.next()));
      keys.push_back(rng.below(11) == 0 ? std::nullopt : std::optional(static_cast<int64_t>(rng.below(60))));
      auto text = [](const auto& value) { return value ? fmt::format("{}", *value) : std::string("~"); };
      rows.push_back({text(ids[i]), text(words[i]), text(counts[i]), text(keys[i])});
      std::string quoted;
      for (char c : words[i].value_or("")) quoted += c == '"' ? "\"\"" : std::string(1, c);
      csv += fmt::format("{},\"{}\",{},{}\n", i, quoted, counts[i] ? text(counts[i]) : "", keys[i] ? text(keys[i]) : "NA");
    }
    table = table_of({{"id", int64s(ids)},
                      {"word", texts(words)},
                      {"count", array_of<arrow::UInt64Builder>(counts)},
                      {"side_key", int64s(keys)}});
  }
};

TEST_F(RawReaderTest, FormatsChunksAndJoinsAgree) {
  SameTable same(1500);
  std::string side_csv = "side_key,name,size\n";
  std::vector<std::optional<int64_t>> keys, sizes;
  std::vector<std::optional<std::string>> names;
  for (int k = 49; k >= 0; --k) {
    keys.push_back(k);
    names.push_back(k % 4 == 0 ? std::nullopt : std::optional(fmt::format("name {}", k)));
    sizes.push_back(k * 1000);
    side_csv += fmt::format("{},{},{}\n", k, names.back().value_or(""), k * 1000);
  }
  auto side_table = table_of({{"side_key", int64s(keys)}, {"name", texts(names)}, {"size", int64s(sizes)}});
  write("side.csv", side_csv);
  write_compressed("side.csv.gz", side_csv, arrow::Compression::GZIP);
  write_parquet("side.parquet", *side_table, 7);
  write_arrow("side.arrow", *side_table, false, 7);
  write_arrow("side.arrows", *side_table, true, 7);

  Rows expected;
  int64_t unmatched = 0;
  for (const auto& row : same.rows) {
    bool found = row[3] != "~" && std::stoi(row[3]) < 50;
    int key = found ? std::stoi(row[3]) : 0;
    expected.push_back(
        {found ? std::to_string(key * 1000) : "~", row[1], row[2], found && key % 4 ? fmt::format("name {}", key) : "~", row[0]});
    unmatched += !found;
  }
  Strings columns = {"size", "word", "count", "name", "id"};
  Strings files = {write("a.csv", same.csv), write_compressed("a.csv.gz", same.csv, arrow::Compression::GZIP),
                   write_parquet("a.parquet", *same.table, 400), write_arrow("a.arrow", *same.table, false, 333),
                   write_arrow("a.arrows", *same.table, true, 333)};
  for (const char* side : {"side.csv", "side.csv.gz", "side.parquet", "side.arrow", "side.arrows"})
    for (const auto& file : files)
      for (int64_t chunk_bytes : {150, 1000, 20000, 8 << 20}) {
        schema_.joins = {{side, "side_key"}};
        RawReader::Options options;
        options.chunk_bytes = chunk_bytes;
        ASSERT_EQ(read({file}, columns, options), expected) << file << " " << side << " " << chunk_bytes;
        ASSERT_EQ(unmatched_, std::vector<int64_t>{unmatched});
      }
}

TEST_F(RawReaderTest, ChunksStayWithinTheirBytes) {
  SameTable same(20000);
  for (const auto& file :
       {write("a.csv", same.csv), write_parquet("a.parquet", *same.table), write_arrow("a.arrow", *same.table, false)}) {
    RawReader::Options options;
    options.chunk_bytes = 10000;
    RawReader reader({{file}}, schema_, {"id", "word"}, options);
    RawChunk chunk;
    int64_t rows = 0, chunks = 0;
    for (; reader.next(chunk); ++chunks) {
      EXPECT_LE(chunk.rows(), 2000) << file;
      EXPECT_EQ(chunk.first_row, rows + 1);
      rows += chunk.rows();
    }
    EXPECT_EQ(rows, 20000);
    EXPECT_GE(chunks, 20) << file;
  }
}

// ------------------------------------------------------------------------------------------------------------------- joins

TEST_F(RawReaderTest, JoinsGiveTheSideTablesColumns) {
  write("users.csv", "user,age\n1,30\n2,40\n03,50\n");
  std::string file = write("a.csv", "user,item\n2,x\n1,y\n9,z\n,w\n3,v\n2,u\n");
  schema_.joins = {{"users.csv", "user"}};
  EXPECT_EQ(read({file}, {"item", "age", "user"}),
            (Rows{{"x", "40", "2"}, {"y", "30", "1"}, {"z", "~", "9"}, {"w", "~", "~"}, {"v", "~", "3"}, {"u", "40", "2"}}));
  EXPECT_EQ(unmatched_, std::vector<int64_t>{3});  // keys are texts: 3 is not 03

  RawReader reader({{file}}, schema_, {"age"}, {});
  RawChunk chunk;
  ASSERT_TRUE(reader.next(chunk));
  EXPECT_EQ(chunk.columns->column(0)->type_id(), arrow::Type::DICTIONARY);
  EXPECT_EQ(chunk.where(1, "age"), fmt::format("{}, row 2 (line 3), column age of {}", file, path("users.csv")));
}

TEST_F(RawReaderTest, SideTablesAreLookedForInTheSchemasFolderFirst) {
  std::string file = write("data/a.csv", "user\n1\n");
  write("data/users.csv", "user,age\n1,30\n");
  schema_.joins = {{"users.csv", "user"}};
  RawReader::Options options;
  expect_error(error_of({file}, {"age"}, options), ErrorKind::Io, "users.csv", {"not found", path("users.csv")});
  options.join_folders = {path("data")};
  EXPECT_EQ(read({file}, {"age"}, options), (Rows{{"30"}}));
  write("users.csv", "user,age\n1,31\n");
  EXPECT_EQ(read({file}, {"age"}, options), (Rows{{"31"}}));
}

TEST_F(RawReaderTest, DuplicateKeysInASideTable) {
  write("users.csv", "user,age\n1,30\n2,40\n1,50\n");
  std::string file = write("a.csv", "user\n1\n");
  schema_.joins = {{"users.csv", "user"}};
  expect_error(error_of({file}, {"age"}), ErrorKind::Data, path("users.csv") + ", row 3 (line 4), column user",
               {"'1'", "row 1", "once"});
  // Missing keys match nothing, so they may repeat.
  write("users.csv", "user,age\n,30\nNA,40\n1,50\n");
  EXPECT_EQ(read({file}, {"age"}), (Rows{{"50"}}));
}

TEST_F(RawReaderTest, TheFilesOwnColumnGoesFirst) {
  write("users.csv", "user,age\n1,30\n");
  std::string with = write("with.csv", "user,age\n1,99\n"), without = write("without.csv", "user\n1\n");
  schema_.joins = {{"users.csv", "user"}};
  EXPECT_EQ(read({with, without, with}, {"age"}), (Rows{{"99"}, {"30"}, {"99"}}));
  EXPECT_EQ(unmatched_, std::vector<int64_t>{0});
  // A file that has everything needs no side table at all.
  fs::remove(path("users.csv"));
  EXPECT_EQ(read({with}, {"age"}), (Rows{{"99"}}));
}

TEST_F(RawReaderTest, AmbiguousAndLackingColumns) {
  write("users.csv", "user,age,city\n1,30,x\n");
  write("items.csv", "item,price,city\n7,5,y\n");
  std::string file = write("a.csv", "user,item\n1,7\n");
  schema_.joins = {{"users.csv", "user"}, {"items.csv", "item"}};
  EXPECT_EQ(read({file}, {"age", "price"}), (Rows{{"30", "5"}}));
  expect_error(error_of({file}, {"city"}), ErrorKind::Data, file, {"'city'", path("users.csv"), path("items.csv")});
  expect_error(error_of({file}, {"prize"}), ErrorKind::Data, file,
               {"neither the file nor a side table has the column 'prize'", "'price'"});
  write("b.csv", "item\n7\n");
  expect_error(error_of({path("b.csv")}, {"age"}), ErrorKind::Data, path("b.csv"), {"'user'", "the key of " + path("users.csv")});
  schema_.joins = {{"users.csv", "usr"}};
  expect_error(error_of({file}, {"age"}), ErrorKind::Data, path("users.csv"), {"key column 'usr'", "Did you mean 'user'?"});
  write("users.csv", "user,age,age\n1,30,31\n");
  schema_.joins = {{"users.csv", "user"}};
  expect_error(error_of({file}, {"age"}), ErrorKind::Data, path("users.csv"), {"'age'", "more than once"});
}

TEST_F(RawReaderTest, AKeyMayComeFromAnEarlierSideTable) {
  write("videos.csv", "video,author\n1,a\n2,b\n3,\n");
  write("authors.csv", "author,fame\na,10\nb,20\n");
  std::string file = write("a.csv", "video\n2\n1\n3\n4\n");
  schema_.joins = {{"videos.csv", "video"}, {"authors.csv", "author"}};
  EXPECT_EQ(read({file}, {"fame", "author"}), (Rows{{"20", "b"}, {"10", "a"}, {"~", "~"}, {"~", "~"}}));
  EXPECT_EQ(unmatched_, (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(read({file}, {"fame"}), (Rows{{"20"}, {"10"}, {"~"}, {"~"}}));
  schema_.joins = {{"authors.csv", "author"}, {"videos.csv", "video"}};  // in this order the key is not there yet
  expect_error(error_of({file}, {"fame"}), ErrorKind::Data, file, {"'author'", "the key of"});
}

TEST_F(RawReaderTest, BadSideTables) {
  std::string file = write("a.csv", "user\n1\n");
  schema_.joins = {{"users.csv", "user"}};
  write("users.csv", "user,name\n1,x\n2,\xff\n");
  expect_error(error_of({file}, {"name"}), ErrorKind::Data, path("users.csv") + ", row 2 (line 3), column name", {"UTF-8"});
  write("users.csv", "user,name\n1\n");
  expect_error(error_of({file}, {"name"}), ErrorKind::Data, path("users.csv") + ", row 1 (line 2)",
               {"found 1 columns; expected 2"});
  write("users.csv", "user,name\n");
  EXPECT_EQ(read({file}, {"name"}), (Rows{{"~"}}));
  schema_.joins = {{"users.parquet", "user"}};
  write_parquet("users.parquet", *table_of({{"user", array_of<arrow::DoubleBuilder, double>({1.0})}, {"name", texts({"x"})}}));
  expect_error(error_of({file}, {"name"}), ErrorKind::Data, path("users.parquet") + ", column user",
               {"double", "whole numbers or text"});
}

TEST_F(RawReaderTest, SideTablesKeepTheirTypes) {
  auto values = std::make_shared<arrow::StringBuilder>();
  arrow::ListBuilder lists(arrow::default_memory_pool(), values);
  for (int i = 0; i < 2; ++i) {
    ok(lists.Append());
    ok(values->AppendValues({fmt::format("t{}", i), "all"}));
  }
  auto colour = ok(arrow::DictionaryArray::FromArrays(arrow::dictionary(arrow::int8(), arrow::utf8()),
                                                      array_of<arrow::Int8Builder, int8_t>({1, 0}), texts({"red", "blue"})));
  write_arrow("side.arrow",
              *table_of({{"k", int64s({5, 6})},
                         {"tags", ok(lists.Finish())},
                         {"colour", colour},
                         {"score", array_of<arrow::DoubleBuilder, double>({0.5, 1.5})}}),
              false, 1);
  schema_.joins = {{"side.arrow", "k"}};
  RawReader reader({{write("a.csv", "k\n6\n7\n5\n")}}, schema_, {"tags", "colour", "score"}, {});
  RawChunk chunk;
  ASSERT_TRUE(reader.next(chunk));
  CellReader tags(chunk, 0, schema_), colours(chunk, 1, schema_), scores(chunk, 2, schema_);
  EXPECT_TRUE(tags.is_list());
  EXPECT_TRUE(scores.is_float());
  EXPECT_EQ(elements_of(tags, 0), (Strings{"t1", "all"}));
  EXPECT_EQ(elements_of(tags, 1), Strings{});
  EXPECT_EQ(colours.cell(0).text, "red");
  EXPECT_TRUE(colours.cell(1).missing);
  EXPECT_EQ(colours.cell(2).text, "blue");
  EXPECT_EQ(scores.cell(2).text, "0.5");
}

TEST_F(RawReaderTest, ManyRowsAKeyBecomeLists) {
  // Users in any order, each one's rows in the order of the file; a missing value within a list is left out.
  write("history.csv", "user,video,long_view,why\n2,a,1,x\n1,b,1,x\n2,c,0,x\n2,d,1,x\n,e,1,x\n1,NA,1,x\n3,f,0,x\n2,a,1,x\n1,g,NA,x\n");
  std::string file = write("a.csv", "user,video\n2,m\n1,n\n3,o\n9,p\n2,q\n");
  auto lists = [&](const std::string& where, int64_t chunk_bytes) {
    schema_.joins = {{"history.csv", "user", true, where, "history_"}};
    RawReader::Options options;
    options.chunk_bytes = chunk_bytes;
    RawReader reader({{file}}, schema_, {"history_video", "video"}, options);
    std::vector<Strings> all;
    RawChunk chunk;
    while (reader.next(chunk)) {
      CellReader history(chunk, 0, schema_), own(chunk, 1, schema_);
      EXPECT_TRUE(history.is_list());
      for (int64_t row = 0; row < chunk.rows(); ++row) {
        all.push_back(elements_of(history, row));
        all.back().emplace_back(own.cell(row).text);
      }
    }
    unmatched_ = reader.unmatched_rows();
    return all;
  };
  for (int64_t chunk_bytes : {1, 1 << 20}) {
    EXPECT_EQ(lists("", chunk_bytes),
              (std::vector<Strings>{{"a", "c", "d", "a", "m"}, {"b", "g", "n"}, {"f", "o"}, {"p"}, {"a", "c", "d", "a", "q"}}));
    EXPECT_EQ(unmatched_, std::vector<int64_t>{1});
    EXPECT_EQ(lists("long_view == 1", chunk_bytes),
              (std::vector<Strings>{{"a", "d", "a", "m"}, {"b", "n"}, {"o"}, {"p"}, {"a", "d", "a", "q"}}));
    EXPECT_EQ(unmatched_, std::vector<int64_t>{2});  // of user 3 nothing is left
    EXPECT_EQ(lists("long_view == 2", chunk_bytes), (std::vector<Strings>{{"m"}, {"n"}, {"o"}, {"p"}, {"q"}}));
  }
  expect_error(error_of({file}, {"history_video"}), ErrorKind::Data, file + ", row 1 (line 2), column history_video of " + path("history.csv"),
               {"found a list", "kind ids or sequence"});
}

TEST_F(RawReaderTest, AConditionLeavesRowsOfASideTableOut) {
  write("users.csv", "user,age,valid\n1,30,0\n1,31,1\n2,40,1\n3,50,0\n");
  std::string file = write("a.csv", "user\n1\n2\n3\n");
  schema_.joins = {{"users.csv", "user", false, "valid == 1", ""}};
  EXPECT_EQ(read({file}, {"age"}), (Rows{{"31"}, {"40"}, {"~"}}));
  // Places count the rows that were left out.
  write("users.csv", "user,age,valid\n1,30,0\n1,31,1\n2,40,0\n1,50,1\n");
  expect_error(error_of({file}, {"age"}), ErrorKind::Data, path("users.csv") + ", row 4 (line 5), column user", {"'1'", "row 2", "many: true"});
  write("users.csv", "user,age,valid\n1,30,0\n1,\xff,1\n");
  expect_error(error_of({file}, {"age"}), ErrorKind::Data, path("users.csv") + ", row 2 (line 3), column age", {"UTF-8"});
  write("users.csv", "user,age,valid\n1,30,0\n1,31,x\n");
  schema_.joins[0].where = "valid > 0";
  expect_error(error_of({file}, {"age"}), ErrorKind::Data, path("users.csv") + ", row 2 (line 3), column valid", {"'x'"});
  schema_.joins[0].where = "vald == 1";
  expect_error(error_of({file}, {"age"}), ErrorKind::Data, path("users.csv"), {"`where`", "'vald'", "Did you mean 'valid'?"});
  write("users.csv", "user,age,valid\n1,30,0\n");
  schema_.joins[0] = {"users.csv", "user", false, "", "user_"};
  EXPECT_EQ(read({file}, {"user_age"}), (Rows{{"30"}, {"~"}, {"~"}}));
  expect_error(error_of({file}, {"age"}), ErrorKind::Data, file, {"'age'"});
}

// ----------------------------------------------------------------------------------------------------- folders and options

TEST_F(RawReaderTest, FoldersAreReadInTheOrderOfNames) {
  write("data/day=2022-05-01/b.csv", "x\n3\n");
  write("data/day=2022-05-01/a.csv", "x\n2\n");
  write("data/day=2022-04-30/z.csv", "x\n1\n");
  write("data/day=2022-05-02/city=New%20York/a.csv", "x\n4\n");
  write("data/day=__HIVE_DEFAULT_PARTITION__/a.csv", "x\n5\n");
  write("data/_SUCCESS", "");
  write("data/.hidden.csv", "broken");
  write_parquet("data/day=2022-05-01/c.parquet", *table_of({{"x", int64s({31})}}));
  EXPECT_EQ(
      read({path("data")}, {"x", "day"}),
      (Rows{
          {"1", "2022-04-30"}, {"2", "2022-05-01"}, {"3", "2022-05-01"}, {"31", "2022-05-01"}, {"4", "2022-05-02"}, {"5", "~"}}));
  EXPECT_EQ(read({path("data/day=2022-05-02")}, {"x", "city"}), (Rows{{"4", "New York"}}));
  expect_error(error_of({path("data")}, {"city"}), ErrorKind::Data, path("data/day=2022-04-30/z.csv"), {"'city'"});

  RawReader reader({{path("data")}}, schema_, {"x"}, {});  // row numbers are those of each file
  RawChunk chunk;
  while (reader.next(chunk)) EXPECT_EQ(chunk.first_row, 1);
}

TEST_F(RawReaderTest, FoldersWithoutDataOrWithStrangers) {
  fs::create_directories(path("empty/deeper"));
  expect_error(error_of({path("empty")}, {"x"}), ErrorKind::Io, path("empty"), {"no data file"});
  write("mixed/a.csv", "x\n1\n");
  write("mixed/README", "hello");
  expect_error(error_of({path("mixed")}, {"x"}), ErrorKind::Io, path("mixed/README"), {"no known data file", "Move it away"});
}

TEST_F(RawReaderTest, OwnColumnsAreKeptOnRequest) {
  write("users.csv", "user,age\n1,30\n2,40\n");
  write("data/day=7/a.csv", "item,user,extra\nx,2,p\ny,1,q\n");
  schema_.joins = {{"users.csv", "user"}};
  RawReader::Options options;
  options.keep_own_columns = true;
  RawReader reader({{path("data")}}, schema_, {"age", "item"}, options);
  RawChunk chunk;
  ASSERT_TRUE(reader.next(chunk));
  EXPECT_EQ(rows_of(chunk, schema_), (Rows{{"40", "x"}, {"30", "y"}}));
  ASSERT_TRUE(chunk.own);
  EXPECT_EQ(chunk.own->schema()->field_names(), (Strings{"item", "user", "extra", "day"}));
  EXPECT_EQ(chunk.own->num_rows(), 2);
  EXPECT_EQ(static_cast<const arrow::StringArray&>(*chunk.own->GetColumnByName("extra")).GetString(1), "q");
  EXPECT_EQ(static_cast<const arrow::StringArray&>(*chunk.own->GetColumnByName("day")).GetString(0), "7");

  auto table = table_of({{"a", int64s({1, 2})}, {"b", texts({"x", "y"})}});
  for (const auto& file :
       {write_parquet("a.parquet", *table), write_arrow("a.arrow", *table, false), write_arrow("a.arrows", *table, true)}) {
    RawReader own_reader({{file}}, schema_, {"b"}, options);
    ASSERT_TRUE(own_reader.next(chunk));
    EXPECT_TRUE(chunk.own->Equals(*ok(table->CombineChunksToBatch()))) << file;
    EXPECT_EQ(rows_of(chunk, schema_), (Rows{{"x"}, {"y"}}));
  }
}

TEST_F(RawReaderTest, OptionalColumnsAreNullWhereTheyAreAbsent) {
  RawReader::Options options;
  options.optional_columns = {"label", "other"};
  std::string with = write("with.csv", "x,label\n1,0\n"), without = write("without.csv", "x\n2\n");
  EXPECT_EQ(read({with, without}, {"label", "x", "other"}, options), (Rows{{"0", "1", "~"}, {"~", "2", "~"}}));
  EXPECT_EQ(read({without}, {"label"}, options),
            (Rows{{"~"}}));  // none of the file's own columns is needed: the rows still count
  for (const auto& file : {write_parquet("a.parquet", *table_of({{"x", int64s({1, 2, 3})}})),
                           write_arrow("a.arrow", *table_of({{"x", int64s({1, 2, 3})}}), false)})
    EXPECT_EQ(read({file}, {"label"}, options), (Rows{{"~"}, {"~"}, {"~"}})) << file;
  schema_.joins = {{"nowhere.csv", "x"}};  // not opened for an optional column alone
  EXPECT_EQ(read({without}, {"label", "x"}, options), (Rows{{"~", "2"}}));
}

TEST_F(RawReaderTest, FilesOfAnInputMayDifferInFormatAndOrderOfColumns) {
  std::string csv = write("a.csv", "a,b\n1,x\n"),
              parquet = write_parquet("b.parquet", *table_of({{"b", texts({"y"})}, {"z", texts({"-"})}, {"a", int64s({2})}}));
  EXPECT_EQ(read({csv, parquet, csv}, {"a", "b"}), (Rows{{"1", "x"}, {"2", "y"}, {"1", "x"}}));
}

}  // namespace
}  // namespace ektm
