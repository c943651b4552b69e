#include "model/checkpoint.h"

#include <caffe2/serialize/inline_container.h>
#include <torch/csrc/jit/serialization/pickle.h>
#include <torch/csrc/jit/serialization/pickler.h>

#include <charconv>
#include <ostream>

#include "program/durable_file.h"
#include "program/exit_code.h"
#include "program/staging_folder.h"

namespace fs = std::filesystem;

namespace {

constexpr int64_t kFormat = 3;

c10::impl::GenericDict dictionary() {
  return c10::impl::GenericDict(c10::StringType::get(), c10::AnyType::get());
}

c10::IValue to_dictionary(const NamedTensors& tensors) {
  auto result = dictionary();
  for (const auto& [name, tensor] : tensors) {
    const auto own = tensor.detach().to(torch::kCPU).contiguous();
    // A view would be stored with all of the flat buffer behind it.
    result.insert(name, torch::from_blob(
                            own.data_ptr(), own.sizes(), [own](void*) {}, own.options()));
  }
  return result;
}

NamedTensors from_dictionary(const c10::IValue& value) {
  NamedTensors result;
  for (const auto& entry : value.toGenericDict())
    result.emplace_back(entry.key().toStringRef(), entry.value().toTensor());
  return result;
}

// A zip archive as torch.save writes it. torch::pickle_save would tag containers in a way that
// torch.load's default (weights_only) refuses; and the archive is built in memory, since LibTorch's
// file writer ends the process on a full disk.
std::string serialize(const c10::IValue& value) {
  std::string pickle, archive;
  torch::jit::Pickler pickler([&](const char* data, size_t size) { pickle.append(data, size); },
                              nullptr, nullptr, nullptr, nullptr, /*tag_aggregates=*/false);
  pickler.protocol();
  pickler.pushIValue(value);
  pickler.stop();
  caffe2::serialize::PyTorchStreamWriter writer([&](const void* data, size_t size) {
    archive.append(static_cast<const char*>(data), size);
    return size;
  });
  size_t index = 0;
  for (const auto& tensor : pickler.tensorData()) {
    const auto& storage = tensor.storage();
    writer.writeRecord("data/" + std::to_string(index++), storage.data(), storage.nbytes());
  }
  writer.writeRecord("data.pkl", pickle.data(), pickle.size());
  writer.writeRecord("byteorder", "little", 6);
  writer.writeEndOfFile();
  return archive;
}

// The steps of all checkpoint_<step>.pt in the folder, newest first; with `lost`, also of those
// that have left only their commit record.
std::vector<int64_t> steps_on_disk(const fs::path& folder, bool lost = false) {
  std::vector<int64_t> steps;
  if (!fs::exists(folder)) return steps;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const fs::path file = entry.path().filename();
    const std::string name = (lost && file.extension() == ".sha256" ? file.stem() : file).string();
    constexpr std::string_view prefix = "checkpoint_", suffix = ".pt";
    if (!name.starts_with(prefix) || !name.ends_with(suffix)) continue;
    int64_t step = 0;
    const char *first = name.data() + prefix.size(),
               *last = name.data() + name.size() - suffix.size();
    if (std::from_chars(first, last, step).ptr == last && first != last) steps.push_back(step);
  }
  std::sort(steps.rbegin(), steps.rend());
  steps.erase(std::unique(steps.begin(), steps.end()), steps.end());
  return steps;
}

// Makes `link` a relative link to `target`, in one step. Returns why that could not be, "" if it
// could: the links are for people, and never the truth.
std::string point_link(const fs::path& link, const fs::path& target, const fs::path& staging) {
  std::error_code error;
  if (fs::exists(fs::symlink_status(link, error)) && !fs::is_symlink(link, error))
    return link.string() +
           " is not a link that this program made, so it was left alone; the checkpoints are next "
           "to it";
  const fs::path temporary = temporary_name(staging / link.filename());
  fs::remove(temporary, error);
  fs::create_symlink(target.filename(), temporary, error);
  if (!error) fs::rename(temporary, link, error);
  return error ? "cannot link " + link.string() + " to " + target.filename().string() + ": " +
                     error.message()
               : "";
}

// path.ENDING, or path.ENDING_1 and so on: one that no file has.
fs::path free_name(const fs::path& path, const std::string& ending) {
  fs::path result;
  int number = 0;
  do result = path.string() + ending + (number ? "_" + std::to_string(number) : "");
  while (++number && fs::exists(fs::symlink_status(result)));
  return result;
}

// Gives a file another name. By a link, so that an earlier attempt cannot take the file away.
void rename_through(const fs::path& path, const fs::path& aside, const fs::path& staging) {
  std::error_code error;
  fs::create_hard_link(path, aside, error);
  if (error && error != std::errc::file_exists)  // a folder, or a file system without such links
    fs::rename(path, aside);
  else if (error || !remove_through(staging, path))
    throw UserError(ExitCode::kIo, "cannot move " + path.string() + " out of the way");
}

// What bears a checkpoint's name without a record was cut off from it, or is somebody's own: it is
// kept under another name. Returns what was done, "" for nothing.
std::string move_aside(const fs::path& path, const fs::path& staging) {
  if (!fs::exists(fs::symlink_status(path)) || fs::exists(record_path(path))) return "";
  const fs::path aside = free_name(path, ".unrecorded");
  rename_through(path, aside, staging);
  return path.string() + " had no commit record and is now " + aside.filename().string();
}

// The links of a folder whose newest checkpoint is `path`. Returns what went wrong.
std::vector<std::string> point_links(const fs::path& path, int64_t best_step,
                                     const fs::path& staging) {
  const fs::path folder = path.parent_path();
  std::vector<std::string> troubles{point_link(folder / "state.pt", path, staging)};
  if (best_step >= 0)
    troubles.push_back(
        point_link(folder / "checkpoint_best.pt", checkpoint_path(folder, best_step), staging));
  return troubles;
}

// Of bytes that were verified.
Checkpoint parse(const fs::path& path, const std::string& bytes) {
  const auto root = torch::pickle_load({bytes.begin(), bytes.end()}).toGenericDict();
  if (const int64_t format = root.at("format").toInt(); format != kFormat)
    throw UserError(ExitCode::kData, path.string() + " is of format " + std::to_string(format) +
                                         ", this program reads format " + std::to_string(kFormat));
  Checkpoint checkpoint;
  checkpoint.progress.step = root.at("step").toInt();
  checkpoint.progress.attempt = root.at("attempt").toInt();
  checkpoint.trained_window = root.at("trained_window").toInt();
  checkpoint.progress.updates = root.at("updates").toDouble();
  if (root.contains("mean_loss"))  // newer than the others
    checkpoint.progress.mean_loss = root.at("mean_loss").toDouble();
  if (root.contains("skipped")) {  // none in a checkpoint of before batches could be skipped
    checkpoint.progress.skipped = root.at("skipped").toInt();
    checkpoint.progress.skipped_batches = root.at("skipped_batches").toInt();
  }
  checkpoint.progress.best_step = root.at("best_step").toInt();
  checkpoint.progress.best_success = root.at("best_success").toDouble();
  checkpoint.config = root.at("config").toStringRef();
  checkpoint.manifest_sha256 = root.at("manifest_sha256").toStringRef();
  if (root.contains("rounds"))  // none in a checkpoint of before there were rounds
    for (const auto& round : root.at("rounds").toListRef())
      checkpoint.rounds.push_back(round.toStringRef());
  checkpoint.model = from_dictionary(root.at("model"));
  checkpoint.first_moment = from_dictionary(root.at("exp_avg"));
  checkpoint.second_moment = from_dictionary(root.at("exp_avg_sq"));
  return checkpoint;
}

}  // namespace

fs::path checkpoint_path(const fs::path& folder, int64_t step) {
  return folder / ("checkpoint_" + std::to_string(step) + ".pt");
}

std::vector<std::string> publish_checkpoint(const fs::path& folder, const Checkpoint& checkpoint,
                                            const fs::path& staging_folder) {
  const fs::path staging = staging_folder.empty() ? folder : staging_folder;
  auto root = dictionary();
  root.insert("format", kFormat);
  root.insert("step", checkpoint.progress.step);
  root.insert("attempt", checkpoint.progress.attempt);
  root.insert("trained_window", checkpoint.trained_window);
  root.insert("updates", checkpoint.progress.updates);
  root.insert("skipped", checkpoint.progress.skipped);
  root.insert("skipped_batches", checkpoint.progress.skipped_batches);
  root.insert("mean_loss", checkpoint.progress.mean_loss);
  root.insert("best_step", checkpoint.progress.best_step);
  root.insert("best_success", checkpoint.progress.best_success);
  root.insert("config", checkpoint.config);
  root.insert("manifest_sha256", checkpoint.manifest_sha256);
  c10::List<std::string> rounds(checkpoint.rounds);
  root.insert("rounds", rounds);
  root.insert("model", to_dictionary(checkpoint.model));
  root.insert("exp_avg", to_dictionary(checkpoint.first_moment));
  root.insert("exp_avg_sq", to_dictionary(checkpoint.second_moment));
  const fs::path path = checkpoint_path(folder, checkpoint.progress.step);
  std::vector<std::string> troubles{move_aside(path, staging)};
  const bool replaces = fs::exists(path);
  try {
    publish_with_record(path, serialize(root), staging);
  } catch (...) {
    if (!replaces) {  // half of a checkpoint, on a disk that may be full
      remove_through(staging, record_path(path));
      remove_through(staging, path);
    }
    throw;
  }
  for (auto& trouble : point_links(path, checkpoint.progress.best_step, staging))
    troubles.push_back(std::move(trouble));
  std::erase(troubles, "");
  return troubles;
}

Checkpoint read_checkpoint(const fs::path& path) {
  std::error_code error;
  const fs::path file = fs::is_symlink(path) ? fs::canonical(path, error) : path;
  if (error) throw UserError(ExitCode::kData, path.string() + " points to nothing");
  const auto [bytes, sha256] = read_verified(file);
  try {
    Checkpoint checkpoint = parse(path, bytes);
    checkpoint.sha256 = sha256;
    return checkpoint;
  } catch (const UserError&) {
    throw;
  } catch (const std::exception&) {
    throw UserError(ExitCode::kData, path.string() + " is not a checkpoint of this program");
  }
}

std::optional<Checkpoint> find_newest_checkpoint(const fs::path& folder, std::ostream& warn,
                                                 int64_t last_step) {
  auto steps = steps_on_disk(folder, /*lost=*/true);
  std::erase_if(steps, [=](int64_t step) { return step > last_step; });
  for (const int64_t step : steps) {
    const fs::path path = checkpoint_path(folder, step);
    try {
      auto checkpoint = read_checkpoint(path);
      if (checkpoint.progress.step == step) return checkpoint;
      warn << "skipping: " << path.string() << " holds step " << checkpoint.progress.step
           << ": rename it and its .sha256, and the name in that file" << std::endl;
    } catch (const UserError& error) {
      if (error.code != ExitCode::kData) throw;
      warn << "skipping: " << error.what() << std::endl;
    }
  }
  if (steps.empty()) return std::nullopt;
  throw UserError(ExitCode::kData,
                  "none of the " + std::to_string(steps.size()) + " checkpoints in " +
                      folder.string() +
                      " is valid: restore one, or choose another out_dir to start over");
}

bool has_checkpoints(const fs::path& folder) { return !steps_on_disk(folder).empty(); }

void set_later_aside(const fs::path& folder, const TrainingProgress& progress,
                     const fs::path& staging, std::ostream& say) {
  for (const int64_t step : steps_on_disk(folder)) {
    const fs::path path = checkpoint_path(folder, step), record = record_path(path);
    if (step <= progress.step || !fs::exists(record)) continue;
    const fs::path aside = free_name(path, ".set_aside");
    // First the record: without it there is no checkpoint.
    fs::rename(record, staging / record.filename());
    fs::rename(staging / record.filename(), record_path(aside));
    rename_through(path, aside, staging);
    say << path.string() << " is now " << aside.filename().string() << std::endl;
  }
  const auto best = fs::path(folder / "checkpoint_best.pt");
  if (progress.best_step < 0 && fs::is_symlink(best)) remove_through(staging, best);
  for (const auto& trouble :
       point_links(checkpoint_path(folder, progress.step), progress.best_step, staging))
    if (!trouble.empty()) say << "warning: " << trouble << std::endl;
}

void prune_checkpoints(const fs::path& folder, const fs::path& staging, int64_t newest,
                       int64_t keep_last, int64_t keep_every, const std::set<int64_t>& best) {
  int64_t kept = 0, intact = 0;
  for (const int64_t step : steps_on_disk(folder, /*lost=*/true)) {
    const fs::path path = checkpoint_path(folder, step);
    // Of later steps than the newest of this run: not ours to judge, and not to be counted as a
    // state we could resume.
    if (step > newest) continue;
    if (!fs::exists(record_path(path))) continue;
    if (!fs::exists(path)) {  // an earlier pruning ended here, or the file is lost
      remove_through(staging, record_path(path));
      continue;
    }
    const bool keep =
        kept++ < keep_last || best.count(step) || (keep_every > 0 && step % keep_every == 0);
    // The newest was read back when it was written.
    if (intact < 2 && (step == newest || is_intact(path)))
      ++intact;
    else if (!keep && remove_through(staging, path))  // in one step
      remove_through(staging, record_path(path));
  }
}
