#include "controller/line_stream.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <string>

#include "program/exit_code.h"
#include "temporary_folder.h"

namespace {

struct Pipe {
  Pipe() {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC)) throw std::runtime_error("no pipe");
    out = Descriptor(ends[0]);
    in = Descriptor(ends[1]);
  }
  void write(std::string_view bytes) const {
    ASSERT_EQ(::write(in.number(), bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
  }
  Descriptor out, in;
};

// "text|", "too long|" of all lines that are there.
std::string lines(LineReader& reader) {
  std::string all;
  while (const auto line = reader.next())
    all += (line->too_long ? "too long" : std::string(line->text)) + "|";
  return all;
}

}  // namespace

TEST(LineReader, PutsPiecesTogether) {
  const Pipe pipe;
  LineReader reader(pipe.out.number());
  pipe.write("one\r\ntwo\nthr");
  EXPECT_TRUE(reader.fill());
  EXPECT_EQ(lines(reader), "one|two|");
  EXPECT_TRUE(reader.cut());
  pipe.write("ee\n\n");
  EXPECT_TRUE(reader.fill());
  EXPECT_EQ(lines(reader), "three||");
  EXPECT_FALSE(reader.cut());
}

TEST(LineReader, DropsLinesThatAreTooLongWhateverTheirLength) {
  for (const size_t length : {255u, 256u, 257u, 4095u, 4096u, 4097u, 50000u}) {
    const Pipe pipe;
    LineReader reader(pipe.out.number());
    const std::string bytes = "a\n" + std::string(length, 'x') + "\nb\n";
    std::string seen;
    for (size_t at = 0; at < bytes.size(); at += 1000) {
      pipe.write(std::string_view(bytes).substr(at, 1000));
      EXPECT_TRUE(reader.fill());
      seen += lines(reader);
    }
    const std::string middle = length <= 256 ? std::string(length, 'x') : "too long";
    EXPECT_EQ(seen, "a|" + middle + "|b|") << length;
  }
}

TEST(LineReader, SeesTheEndOfTheInput) {
  Pipe pipe;
  LineReader reader(pipe.out.number());
  pipe.write("whole\nhalf");
  pipe.in = Descriptor();
  EXPECT_TRUE(reader.fill());
  EXPECT_EQ(lines(reader), "whole|");
  EXPECT_FALSE(reader.fill());
  EXPECT_EQ(lines(reader), "");
  EXPECT_TRUE(reader.cut());
}

TEST(LineWriter, NeverWaitsForASlowReader) {
  const Pipe pipe;
  LineWriter writer(pipe.in.number());
  const std::string line(100, 'x');
  int taken = 0;
  while (writer.write(line + "\n")) ASSERT_LT(++taken, 100000);
  EXPECT_FALSE(writer.write(line + "\n"));
  // Once there is room again, what arrives are whole lines.
  std::string read(1 << 20, '\0');
  read.resize(static_cast<size_t>(::read(pipe.out.number(), read.data(), read.size())));
  EXPECT_TRUE(writer.write("last\n"));
  EXPECT_EQ(read.size() % 101, 0u);
}

TEST(LineWriter, SurvivesAReaderThatIsGone) {
  std::signal(SIGPIPE, SIG_IGN);
  Pipe pipe;
  LineWriter writer(pipe.in.number());
  pipe.out = Descriptor();
  EXPECT_FALSE(writer.write("line\n"));
}

TEST(LineWriter, FinishesALineThatWentOutInPart) {
  const TemporaryFolder folder;
  const std::string path = folder.path / "socket";
  const SocketListener listener(path);
  const Descriptor client = connect_to(path), server = listener.accept();
  LineWriter writer(server.number());
  const std::string line = std::string(250, 'x') + "\n";
  while (writer.write(line)) {
  }
  std::string read, part(4096, '\0');
  for (int round = 0; round < 1000; ++round) {
    const ssize_t count = ::read(client.number(), part.data(), part.size());
    if (count > 0) read.append(part.data(), static_cast<size_t>(count));
    if (round < 500) writer.write(line);
    if (count <= 0 && round > 500) break;
  }
  EXPECT_GT(read.size(), 10000u);
  for (size_t at = 0; at < read.size(); at += line.size())
    ASSERT_EQ(read.compare(at, line.size(), line), 0) << at;
}

TEST(SocketListener, ReplacesAStaleSocketAndNothingElse) {
  const TemporaryFolder folder;
  const std::string path = folder.path / "socket";
  const auto refused = [&] {
    try {
      const SocketListener listener(path);
      return std::string();
    } catch (const UserError& error) {
      EXPECT_EQ(error.code, ExitCode::kConfiguration);
      return std::string(error.what());
    }
  };
  {
    const SocketListener listener(path);
    EXPECT_NE(refused().find("another process listens there"), std::string::npos);
    EXPECT_TRUE(connect_to(path));
    std::filesystem::rename(path, path + "_stale");
  }
  EXPECT_TRUE(std::filesystem::exists(path + "_stale"));  // not its name any more
  std::filesystem::rename(path + "_stale", path);
  EXPECT_FALSE(connect_to(path));
  EXPECT_EQ(refused(), "");
  EXPECT_FALSE(std::filesystem::exists(path));
  std::ofstream(path) << "mine";
  EXPECT_NE(refused().find("exists and is not a socket"), std::string::npos);
  EXPECT_TRUE(std::filesystem::exists(path));
  EXPECT_THROW(check_socket_path(std::string(108, 'x')), UserError);
}
