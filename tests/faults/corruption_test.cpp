// Thousands of damaged folders: nothing damaged is read as if it were whole.
#include <gtest/gtest.h>

#include <charconv>
#include <cstdlib>
#include <set>
#include <sstream>

#include "mutation.h"
#include "program/exit_code.h"
#include "run/run_folder.h"
#include "small_dataset.h"
#include "temporary_folder.h"

namespace fs = std::filesystem;

namespace {

int least_mutations() { return std::getenv("CHECK_ALL") ? 10'000 : 2'000; }

int sum(const std::map<std::string, int>& counts) {
  int total = 0;
  for (const auto& [name, count] : counts) total += count;
  return total;
}

void expect_each(const std::map<std::string, int>& counts, size_t names, int least) {
  EXPECT_EQ(counts.size(), names);
  for (const auto& [name, count] : counts) EXPECT_GE(count, least) << name;
}

// What the function throws.
template <class Function>
std::optional<UserError> error_of(const Function& function) {
  try {
    function();
  } catch (const UserError& error) {
    return error;
  }
  return std::nullopt;
}

// A new file: to overwrite one waits for the disk on some file systems.
void rewrite(const fs::path& path, const std::string& text) {
  fs::remove(path);
  std::ofstream(path, std::ios::binary) << text;
}

bool names_one_of(const std::string& text, const fs::path& root,
                  const std::vector<std::string>& names) {
  return std::any_of(names.begin(), names.end(), [&](const std::string& name) {
    return text.find((root / name).string() + " ") != std::string::npos;
  });
}

}  // namespace

// Checkpoints -----------------------------------------------------------------------------------

namespace {

// One to four tensors, up to 20 KB, and numbers of which no two checkpoints have the same.
Checkpoint varied_checkpoint(int64_t step, uint64_t seed) {
  CounterRandom random(seed, 1, static_cast<uint64_t>(step));
  const auto tensors = [&] {
    NamedTensors result;
    const uint32_t count = 1 + random.bits() % 4;
    for (uint32_t i = 0; i < count; ++i) {
      auto values = torch::empty({1 + random.bits() % 40, 1 + random.bits() % 32});
      for (int64_t k = 0; k < values.numel(); ++k)
        values.data_ptr<float>()[k] = static_cast<float>(random.uniform(-1, 1));
      result.emplace_back("layer." + std::to_string(i), values);
    }
    return result;
  };
  Config config;
  config.seed = static_cast<int64_t>(seed);
  Checkpoint checkpoint;
  checkpoint.progress.step = step;
  checkpoint.progress.attempt = step / 10;
  checkpoint.progress.updates = random.uniform();
  checkpoint.progress.best_step = 20;
  checkpoint.progress.best_success = random.uniform();
  checkpoint.trained_window = 64;
  checkpoint.config = to_yaml(config);
  checkpoint.manifest_sha256 = sha256_hex(std::to_string(seed));
  checkpoint.model = tensors();
  checkpoint.first_moment = tensors();
  checkpoint.second_moment = tensors();
  checkpoint.rounds = {sha256_hex("round")};
  return checkpoint;
}

bool equal(const NamedTensors& a, const NamedTensors& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const auto& x, const auto& y) {
    return x.first == y.first && x.second.scalar_type() == y.second.scalar_type() &&
           torch::equal(x.second, y.second);
  });
}
bool equal(const Checkpoint& a, const Checkpoint& b) {
  const auto numbers = [](const Checkpoint& c) {
    return std::tie(c.progress.step, c.progress.attempt, c.progress.updates, c.progress.best_step,
                    c.progress.best_success, c.trained_window, c.config, c.manifest_sha256,
                    c.rounds);
  };
  return numbers(a) == numbers(b) && equal(a.model, b.model) &&
         equal(a.first_moment, b.first_moment) && equal(a.second_moment, b.second_moment);
}

// The steps of which the run has a checkpoint or its record, newest first.
std::set<int64_t, std::greater<>> steps_of(const Files& files) {
  std::set<int64_t, std::greater<>> steps;
  for (const auto& [name, held] : files) {
    constexpr std::string_view kBegin = "run/checkpoint_";
    int64_t step = 0;
    if (name.starts_with(kBegin) &&
        std::from_chars(name.data() + kBegin.size(), name.data() + name.size(), step).ec ==
            std::errc())
      steps.insert(step);
  }
  return steps;
}

// Two runs of different configurations: the other one went further.
class TwoRuns {
 public:
  TwoRuns() {
    for (const auto& [run, seed, steps] :
         {std::tuple("run/", 3, std::vector<int64_t>{9, 10, 20, 30, 100}),
          {"other/", 4, std::vector<int64_t>{10, 20, 30, 100, 2000}}}) {
      fs::create_directory(folder.path / run);
      for (const int64_t step : steps) {
        published_[checkpoint_path(run, step)] =
            varied_checkpoint(step, static_cast<uint64_t>(seed));
        publish_checkpoint(folder.path / run, published_[checkpoint_path(run, step)]);
      }
    }
    intact = read_files(folder.path);
  }

  // The checkpoint that a name stands for, if not one byte of it or of its record is another than
  // when it was published.
  const Checkpoint* whole(const Files& files, const std::string& name) const {
    const auto file = follow(files, name);
    if (!file) return nullptr;
    for (const auto& [published, checkpoint] : published_)
      if (fs::path(published).filename() == fs::path(*file).filename() &&
          read(files, *file) == read(intact, published) &&
          read(files, record_path(*file)) == read(intact, record_path(published)))
        return &checkpoint;
    return nullptr;
  }

  // Whether a start would find one.
  bool has_whole(const Files& files) const {
    const auto steps = steps_of(files);
    return std::any_of(steps.begin(), steps.end(), [&](int64_t step) {
      const auto* checkpoint = whole(files, checkpoint_path("run", step));
      return checkpoint && checkpoint->progress.step == step;
    });
  }

  TemporaryFolder folder;
  Files intact;

 private:
  std::map<std::string, Checkpoint> published_;
};

// What a start finds in the folder.
struct Found {
  std::optional<Checkpoint> checkpoint;
  std::string warnings;
  std::optional<UserError> error;
};
Found find_newest(const fs::path& folder) {
  Found found;
  std::ostringstream warnings;
  found.error = error_of([&] { found.checkpoint = find_newest_checkpoint(folder, warnings); });
  found.warnings = warnings.str();
  return found;
}

// Compares what is found with what the files are. Returns a name for it.
std::string expect_the_newest_whole_one(const TwoRuns& runs, const Files& files) {
  const fs::path root = runs.folder.path;
  const auto found = find_newest(root / "run");
  const auto steps = steps_of(files);
  const Checkpoint* expected = nullptr;
  std::vector<std::string> skipped;
  for (const int64_t step : steps) {
    const std::string name = checkpoint_path("run", step);
    expected = runs.whole(files, name);
    if (expected && expected->progress.step == step) break;
    expected = nullptr;
    skipped.push_back(name);
  }
  EXPECT_EQ(std::count(found.warnings.begin(), found.warnings.end(), '\n'),
            static_cast<ptrdiff_t>(skipped.size()))
      << found.warnings;
  for (const auto& name : skipped)
    EXPECT_TRUE(names_one_of(found.warnings, root, {name, follow(files, name).value_or(name)}))
        << name << " is not named in: " << found.warnings;
  EXPECT_EQ(found.checkpoint.has_value(), expected != nullptr);
  EXPECT_EQ(found.error.has_value(), !expected && !steps.empty());
  if (found.error) {
    EXPECT_EQ(found.error->code, ExitCode::kData);
    EXPECT_NE(std::string(found.error->what()).find((root / "run").string()), std::string::npos);
    return "refused";
  }
  if (!expected || !found.checkpoint) return "nothing left";
  EXPECT_TRUE(equal(*found.checkpoint, *expected)) << "step " << expected->progress.step;

  Config config;
  config.seed = 3;  // of the run
  const bool foreign = expected->config != to_yaml(config);
  const auto refusal = error_of([&] { refuse_other_run("run", found.checkpoint->config, config); });
  EXPECT_EQ(refusal.has_value(), foreign);
  if (refusal) {
    EXPECT_EQ(refusal->code, ExitCode::kConfiguration);
    EXPECT_NE(std::string(refusal->what()).find("seed was 4 and is now 3"), std::string::npos);
  }
  return foreign ? "of another run" : skipped.empty() ? "the newest" : "an older one";
}

void expect_what_a_link_leads_to(const TwoRuns& runs, const Files& files, const std::string& link) {
  const fs::path root = runs.folder.path;
  const Checkpoint* expected = runs.whole(files, link);
  std::optional<Checkpoint> read;
  const auto error = error_of([&] { read = read_checkpoint(root / link); });
  EXPECT_EQ(read.has_value(), expected != nullptr) << link;
  if (read && expected) {
    EXPECT_TRUE(equal(*read, *expected)) << link;
  }
  if (!error) return;
  EXPECT_EQ(error->code, ExitCode::kData);
  EXPECT_TRUE(names_one_of(error->what(), root, {link, follow(files, link).value_or(link)}))
      << link << " is not named in: " << error->what();
}

}  // namespace

TEST(Corruption, TheNewestWholeCheckpointIsFoundWhateverElseIsDamaged) {
  const TwoRuns runs;
  const fs::path root = runs.folder.path;
  std::map<std::string, int> kinds, outcomes;
  for (uint64_t trial = 0; sum(kinds) < least_mutations(); ++trial) {
    Files files = runs.intact;
    Mutator mutator{files,
                    "run/",
                    "other/",
                    {"run/state.pt", "run/checkpoint_best.pt"},
                    CounterRandom(1, 0, trial),
                    kinds};
    std::string done = "trial " + std::to_string(trial) + ": ";
    const uint32_t few = 1 + mutator.random.bits() % 3;
    const bool all = trial % 16 == 15;
    for (uint32_t i = 0; i < few || (all && runs.has_whole(files)); ++i)
      done += mutator.mutate() + "; ";
    kinds = mutator.kinds;

    const ::testing::ScopedTrace trace(__FILE__, __LINE__, done);
    change_files(root, runs.intact, files);
    ++outcomes[expect_the_newest_whole_one(runs, files)];
    for (const auto& link : mutator.links) expect_what_a_link_leads_to(runs, files, link);
    EXPECT_EQ(read_files(root), files) << "reading changed a file";
    change_files(root, files, runs.intact);
    if (HasFailure()) break;
  }
  EXPECT_EQ(expect_the_newest_whole_one(runs, runs.intact), "the newest");
  expect_each(kinds, 11, least_mutations() / 50);
  outcomes.erase("nothing left");  // hardly ever
  expect_each(outcomes, 4, least_mutations() / 100);
}

TEST(Corruption, EveryBitAndEveryLengthOfACommitRecordMatters) {
  const TwoRuns runs;
  const fs::path path = runs.folder.path / "run/checkpoint_100.pt", record = record_path(path);
  const std::string intact = read_file(record);
  const auto expect_refused = [&](const std::string& text, const std::string& what) {
    rewrite(record, text);
    const auto found = find_newest(path.parent_path());
    ASSERT_TRUE(found.checkpoint) << what;
    EXPECT_EQ(found.checkpoint->progress.step, 30) << what;
    EXPECT_NE(found.warnings.find(path.string()), std::string::npos) << what;
  };
  for (size_t at = 0; at < intact.size(); ++at) {
    expect_refused(intact.substr(0, at), "cut at " + std::to_string(at));
    for (int bit = 0; bit < 8; ++bit) {
      std::string text = intact;
      text[at] ^= static_cast<char>(1 << bit);
      expect_refused(text, "bit " + std::to_string(bit) + " at " + std::to_string(at));
    }
  }
}

// Data --------------------------------------------------------------------------------------------

namespace {

// Two datasets of different settings, with as many shards.
class TwoDatasets {
 public:
  TwoDatasets() {
    for (const auto& [dataset, steps] : {std::pair("data/", 5), {"other/", 7}}) {
      const fs::path path = folder.path / dataset;
      const auto length = static_cast<uint32_t>(steps);
      nlohmann::json shards;
      for (int shard = 0; shard < 3; ++shard)
        shards.push_back(make_shard(
            path, shard, counting_trajectories(2 + static_cast<uint32_t>(shard), length)));
      publish_manifest(path, small_settings(steps), {{"train", shards}});
    }
    intact = read_files(folder.path);
  }

  // The dataset, `data/` or `other/`, of which the manifest is that of the files; "" when it is of
  // neither.
  std::string described(const Files& files) const {
    for (const std::string dataset : {"data/", "other/"})
      if (read(files, "data/manifest.json") == read(intact, dataset + "manifest.json") &&
          read(files, "data/manifest.json.sha256") ==
              read(intact, dataset + "manifest.json.sha256"))
        return dataset;
    return "";
  }
  // The shards that are not what the manifest describes.
  std::vector<std::string> damaged(const Files& files) const {
    std::vector<std::string> names;
    for (const char* shard :
         {"train/shard_00000.h5", "train/shard_00001.h5", "train/shard_00002.h5"})
      if (read(files, std::string("data/") + shard) != read(intact, described(files) + shard))
        names.push_back(std::string("data/") + shard);
    return names;
  }

  TemporaryFolder folder;
  Files intact;
};

// What a program that reads the dataset says before it does; "" for nothing wrong.
std::string complaint(const fs::path& folder) {
  std::string damage;
  const auto error = error_of([&] {
    const auto manifest = Manifest::read(folder);
    damage = manifest.find_damage("train");
    if (!damage.empty()) return;
    const Dataset dataset(manifest, "train");
    EXPECT_EQ(dataset.size(), 9U);
    for (size_t i = 0; i < dataset.size(); ++i) {
      const auto [shard, row] = dataset[i];
      EXPECT_EQ(shard.state(row)[0], static_cast<float>(row));
      EXPECT_EQ(shard.force_sent(row)[shard.steps() - 1],
                0.25F * static_cast<float>(shard.steps() - 1));
    }
  });
  if (!error) return damage;
  EXPECT_EQ(error->code, ExitCode::kData);
  return error->what();
}

}  // namespace

TEST(Corruption, ADamagedDatasetIsNamedAndNotRead) {
  const TwoDatasets datasets;
  const fs::path root = datasets.folder.path;
  std::map<std::string, int> kinds, outcomes;
  for (uint64_t trial = 0; sum(kinds) < least_mutations(); ++trial) {
    Files files = datasets.intact;
    Mutator mutator{files, "data/", "other/", {}, CounterRandom(2, 0, trial), kinds};
    std::string done = "trial " + std::to_string(trial) + ": ";
    for (uint32_t i = 0, n = 1 + mutator.random.bits() % 2; i < n; ++i)
      done += mutator.mutate() + "; ";
    kinds = mutator.kinds;

    const ::testing::ScopedTrace trace(__FILE__, __LINE__, done);
    change_files(root, datasets.intact, files);
    const std::string said = complaint(root / "data");
    std::string outcome = "whole";
    if (datasets.described(files).empty()) {
      outcome = "manifest";
      EXPECT_TRUE(names_one_of(said, root, {"data/manifest.json"})) << said;
    } else if (const auto damaged = datasets.damaged(files); !damaged.empty()) {
      outcome = datasets.described(files) == "data/" ? "shard" : "shard of another dataset";
      EXPECT_TRUE(names_one_of(said, root, damaged)) << said;
    } else {
      EXPECT_EQ(said, "");
    }
    ++outcomes[outcome];
    EXPECT_EQ(read_files(root), files) << "reading changed a file";
    change_files(root, files, datasets.intact);
    if (HasFailure()) break;
  }
  EXPECT_EQ(complaint(root / "data"), "");
  expect_each(kinds, 10, least_mutations() / 50);
  outcomes.erase("whole");  // damage that a second one undid
  expect_each(outcomes, 3, least_mutations() / 50);
}

TEST(Corruption, EveryBitAndEveryLengthOfAManifestsRecordMatters) {
  const TwoDatasets datasets;
  const fs::path data = datasets.folder.path / "data";
  for (const char* name : {"manifest.json.sha256", "manifest.json"}) {
    const std::string intact = read_file(data / name);
    const auto expect_refused = [&](const std::string& text, const std::string& what) {
      rewrite(data / name, text);
      const auto error = error_of([&] { Manifest::read(data); });
      ASSERT_TRUE(error) << name << " with " << what;
      EXPECT_EQ(error->code, ExitCode::kData);
      EXPECT_TRUE(names_one_of(error->what(), data, {"manifest.json"})) << error->what();
    };
    for (size_t at = 0; at < intact.size(); ++at) {
      expect_refused(intact.substr(0, at), "cut at " + std::to_string(at));
      std::string text = intact;
      text[at] ^= static_cast<char>(1 << at % 8);
      expect_refused(text, "a flip at " + std::to_string(at));
    }
    rewrite(data / name, intact);
  }
  EXPECT_EQ(complaint(data), "");
}

// As after somebody "repaired" a manifest.
TEST(Corruption, AWholeShardOfAnotherShapeIsNotTakenIntoADataset) {
  const TwoDatasets datasets;
  const fs::path data = datasets.folder.path / "data", other = datasets.folder.path / "other";
  auto manifest = nlohmann::json::parse(read_file(data / "manifest.json"));
  auto& shards = manifest["splits"]["train"]["shards"];
  shards[1] =
      nlohmann::json::parse(read_file(other / "manifest.json"))["splits"]["train"]["shards"][1];
  publish_with_record(data / "manifest.json", manifest.dump());
  fs::copy_file(other / "train/shard_00001.h5", data / "train/shard_00001.h5",
                fs::copy_options::overwrite_existing);
  EXPECT_EQ(complaint(data), "train/shard_00001.h5 and manifest.json disagree on its shape");
}
