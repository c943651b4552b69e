#include "run/trainer.h"

#include <ATen/cpu/Utils.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <csignal>
#include <ctime>
#include <iostream>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <thread>

#include "evaluation/evaluation.h"
#include "model/checkpoint.h"
#include "program/durable_file.h"
#include "program/folder_lock.h"
#include "program/watchdog.h"
#include "run/advice.h"
#include "run/metrics.h"
#include "run/run_plan.h"
#include "run/validation.h"
#include "training/batch_queue.h"
#include "training/device.h"
#include "training/train_step.h"

namespace fs = std::filesystem;

namespace {

std::atomic<bool> asked_to_leave = false;

// Refuses an output folder that another configuration wrote, as its YAML says; settings that change
// no number of the training may differ.
void check_same_run(const std::string& former, const Config& config) {
  const auto there = flatten_yaml(to_yaml(parse_yaml(former, config.out_dir + "'s configuration"))),
             here = flatten_yaml(to_yaml(config));
  for (const auto& [key, value] : here) {
    const bool free = key == "out_dir" || key == "device" || key == "training.batch_size" ||
                      key == "training.cuda_graphs" || key == "training.hang_seconds" ||
                      key == "training.save_every_steps" || key == "training.keep_every_steps" ||
                      key == "training.keep_last" || key == "training.log_every_steps" ||
                      key == "training.print_every_steps" || key.starts_with("dataset.") ||
                      key.starts_with("evaluation.") || key.starts_with("wandb.");
    if (!free && there.at(key) != value)
      throw UserError(ExitCode::kConfiguration,
                      config.out_dir + " holds a run of another configuration: " + key + " was " +
                          there.at(key) + " and is now " + value +
                          ". Restore the setting, or choose another out_dir");
  }
}

// Tensors by name into views of the flat buffers.
void restore(const NamedTensors& stored, const NamedTensors& views) {
  TORCH_CHECK(stored.size() == views.size(), "checkpoint: holds ", stored.size(),
              " tensors, expected ", views.size());
  const std::map<std::string, torch::Tensor> by_name(stored.begin(), stored.end());
  for (const auto& [name, view] : views) torch::Tensor(view).copy_(by_name.at(name));
}

// Which bf16 instructions the processor has, "" for none.
std::string bf16_instructions() {
  const auto capabilities = at::cpu::get_cpu_capabilities();
  for (const char* name : {"amx_bf16", "avx512_bf16", "bf16"})  // the last is Arm's
    if (capabilities.count(name) && capabilities.at(name).toBool()) return name;
  return "";
}

// Revision and the libraries in use.
std::string describe_build() {
  char mpi_version[MPI_MAX_LIBRARY_VERSION_STRING];
  int length = 0;
  MPI_Get_library_version(mpi_version, &length);
  const std::string mpi(mpi_version);
  return "train_gpt2 " + program_revision() + ": LibTorch " + TORCH_VERSION + ", " +
         mpi.substr(0, mpi.find(',')) + ", " + gpu_libraries();
}

// Collective. Which of the ranks that see the same file, on a file system that they share, this
// one is.
struct Sharer {
  size_t rank = 0, size = 0;
};
Sharer sharer_of(const fs::path& path, const MpiSession& mpi) {
  struct stat file {};
  ::stat(path.c_str(), &file);
  // Devices have other numbers on other machines, and copies may keep all but the time of change.
  using Identity = std::array<int64_t, 4>;
  const Identity mine{static_cast<int64_t>(file.st_ino), file.st_size, file.st_ctim.tv_sec,
                      file.st_ctim.tv_nsec};
  std::vector<Identity> all(static_cast<size_t>(mpi.size()));
  MPI_Allgather(&mine, sizeof mine, MPI_BYTE, all.data(), sizeof mine, MPI_BYTE, MPI_COMM_WORLD);
  return {static_cast<size_t>(std::count(all.begin(), all.begin() + mpi.rank(), mine)),
          static_cast<size_t>(std::count(all.begin(), all.end(), mine))};
}

// Collective. Every byte of the two splits is hashed once on each file system, shared out over the
// ranks that see it.
Manifest verified_manifest(const Config& config, const MpiSession& mpi, Watchdog& watchdog) {
  watchdog.progress("reading the dataset's manifest", Watchdog::kLong);
  Manifest manifest;
  together([&] {
    // A run that was there before saw its dataset: a file system is gone, not the dataset.
    if (!fs::exists(config.dataset.path) && fs::exists(fs::path(config.out_dir) / "config.yaml"))
      throw UserError(ExitCode::kIo, config.dataset.path + " is not there, but " + config.out_dir +
                                         " holds a run: is its file system mounted? Or set "
                                         "dataset.path");
    manifest = Manifest::read(config.dataset.path);
    refuse_other_settings(config.dataset.path, manifest.settings, dataset_settings(config.dataset),
                          ": restore the setting, or choose another dataset.path");
    if (static_cast<int64_t>(manifest.steps) < config.model.n_positions)
      throw UserError(ExitCode::kData, config.dataset.path + " has trajectories of " +
                                           std::to_string(manifest.steps) +
                                           " steps, fewer than model.n_positions " +
                                           std::to_string(config.model.n_positions));
  });
  std::string first = manifest.sha256;
  broadcast_text(first);
  agree(manifest.sha256 == first ? ""
                                 : "rank " + std::to_string(mpi.rank()) +
                                       " finds another dataset in " + config.dataset.path +
                                       " than rank 0: copy one to all machines, or use a shared "
                                       "file system",
        ExitCode::kData);
  const auto [rank, size] = sharer_of(fs::path(config.dataset.path) / "manifest.json", mpi);
  double bytes = 0;
  for (const char* split : {"train", "validation"})
    if (manifest.splits.count(split))
      for (const auto& record : manifest.splits.at(split))
        bytes += static_cast<double>(record.bytes);
  constexpr double kSlowestDisk = 20e6;  // bytes per second
  watchdog.progress("verifying the dataset",
                    Watchdog::kLong + bytes / static_cast<double>(size) / kSlowestDisk /
                                          static_cast<double>(config.training.hang_seconds));
  together([&] {
    for (const char* split : {"train", "validation"})
      if (const auto damage = manifest.find_damage(split, rank, size); !damage.empty())
        throw UserError(ExitCode::kData, damage);
  });
  watchdog.rest();
  return manifest;
}

// Collective. What the ranks compute on: "2 x NVIDIA H200, 139 GiB". On rank 0. Refuses different
// ones: what each rank computes for itself, the gradient's norm, must round alike, or replicas
// part.
std::string all_devices(torch::Device device, const MpiSession& mpi) {
  constexpr size_t kLength = 128;
  std::string mine = describe_device(device);
  mine.resize(kLength - 1);
  mine.resize(kLength, '\0');
  std::string all(kLength * static_cast<size_t>(mpi.size()), '\0');
  MPI_Gather(mine.data(), kLength, MPI_CHAR, all.data(), kLength, MPI_CHAR, 0, MPI_COMM_WORLD);
  std::map<std::string, int> counts;
  if (mpi.rank() == 0)
    for (size_t at = 0; at < all.size(); at += kLength) ++counts[all.c_str() + at];
  std::string text;
  for (const auto& [name, count] : counts)
    text += (text.empty() ? "" : "; ") + std::to_string(count) + " x " + name;
  agree(counts.size() > 1 ? "the ranks compute on different devices (" + text +
                                "), which may round differently: take nodes of one kind (Slurm: "
                                "--constraint)"
                          : "",
        ExitCode::kConfiguration);
  return text;
}

class Trainer {
 public:
  Trainer(const Config& config, const MpiSession& mpi, Watchdog& watchdog)
      : config_(config),
        mpi_(mpi),
        watchdog_(watchdog),
        manifest_(verified_manifest(config, mpi, watchdog)),
        plan_(agreed_plan()),
        dataset_(mapped("train")),
        validation_(config.training.validate_every_steps ? mapped("validation") : nullptr),
        loader_(made_loader()),
        device_(choose_device(config.device, mpi)),
        devices_(all_devices(device_, mpi)),
        communicator_(
            make_communicator(device_, static_cast<double>(config.training.hang_seconds))),
        model_(seeded_model()),
        parameters_(*model_, flat_options()),
        optimizer_(parameters_, config_.training),
        gradient_sum_(parameters_, *communicator_),
        train_step_(made_step()),
        advice_(plan_.steps),
        peak_flops_(peak_flops(device_, config.training.precision) * mpi.size()) {}
  ~Trainer() {
    watchdog_.watch_for([] { return std::string(); });
  }
  Trainer(const Trainer&) = delete;
  Trainer& operator=(const Trainer&) = delete;

  ExitCode run();

 private:
  // Collective. Also fixes the global batch size in config_, so that what is saved says what was
  // trained.
  RunPlan agreed_plan() {
    std::optional<RunPlan> plan;
    together([&] {
      plan = plan_run(config_, static_cast<int64_t>(manifest_.trajectories("train")), mpi_.size());
      config_.training.global_batch_size = plan->global_batch_size;
    });
    return *plan;
  }
  // Collective.
  std::unique_ptr<Dataset> mapped(const std::string& split) const {
    watchdog_.progress("mapping the dataset", Watchdog::kLong);
    std::unique_ptr<Dataset> dataset;
    together([&] { dataset = std::make_unique<Dataset>(manifest_, split); });
    watchdog_.rest();
    return dataset;
  }
  // Collective.
  std::unique_ptr<Loader> made_loader() const {
    std::unique_ptr<Loader> loader;
    together([&] {
      loader = std::make_unique<Loader>(*dataset_, manifest_.statistics, config_,
                                        plan_.global_batch_size);
    });
    return loader;
  }
  ControlModel seeded_model() const {
    torch::manual_seed(static_cast<uint64_t>(config_.seed));
    return ControlModel(config_.model);
  }

  FlatOptions flat_options() const {
    const auto& training = config_.training;
    const auto precision = training.precision == "bf16" ? torch::kBFloat16 : torch::kFloat32;
    return {precision, training.reduce_precision == "fp32" ? torch::kFloat32 : precision, device_};
  }
  Step made_step() {
    const auto scale = force_scale(manifest_.statistics, device_);
    return on_device(device_, config_.training.cuda_graphs, [this, scale](const StepInput& input) {
      return train_step(input, scale, model_, parameters_, optimizer_, gradient_sum_,
                        *communicator_);
    });
  }

  void connect();
  void resume();
  void check_disk() const;
  void say_banner(const std::string& attention) const;
  Checkpoint snapshot() const;
  bool save();
  void start_step(BatchQueue& queue);
  bool collect_reports(BatchQueue& queue);
  void validate_and_keep_best();
  void log(int64_t step, const StepReport& report, const StepTime& time);
  std::string progress_line(int64_t step, const StepReport& report) const;

  double learning_rate() const { return learning_rate_at(config_.training, step_, plan_.steps); }
  // Success jumps about until the learning rate has begun to fall: what was validated before never
  // beats what was validated after (LOG.md, "What decides").
  bool decays_at(int64_t step) const {
    return step > config_.training.warmup_steps &&
           learning_rate_at(config_.training, step, plan_.steps) < config_.training.learning_rate;
  }

  Config config_;
  const MpiSession& mpi_;
  Watchdog& watchdog_;
  Manifest manifest_;
  RunPlan plan_;
  std::unique_ptr<Dataset> dataset_, validation_;
  std::unique_ptr<Loader> loader_;
  torch::Device device_;
  std::string devices_;  // of all ranks, on rank 0
  std::unique_ptr<Communicator> communicator_;
  ControlModel model_;
  FlatParameters parameters_;
  AdamW optimizer_;
  GradientSum gradient_sum_;
  Step train_step_;  // after communicator_: its graphs hold sums of NCCL's
  Advice advice_;
  double peak_flops_;                   // of all ranks; 0: not known
  std::vector<torch::Tensor> pending_;  // reports of steps that were started and not yet logged
  double pending_since_ = 0, waited_before_ = 0;
  int64_t collect_every_ = 1;  // steps
  int64_t skipped_in_a_row_ = 0;
  std::unique_ptr<FolderLock> lock_;  // rank 0
  double lock_checked_ = 0;           // MPI_Wtime()
  std::optional<Metrics> metrics_;    // rank 0
  int64_t step_ = 0, attempt_ = 0, failed_saves_ = 0, saved_step_ = -1, failed_step_ = -1;
  bool validated_ = false;  // at the step that is continued
  std::set<std::string> said_troubles_;
  int64_t best_step_ = -1;
  double best_success_ = 0, last_success_ = -1;
  // Since the last line of metrics.jsonl, and since the last line for people.
  struct Interval {
    int64_t steps = 0, tokens = 0;
    double seconds = 0, waited = 0, exposed = 0;
  };
  Interval logged_, printed_, all_;
  double begin_ = 0, last_progress_ = 0, validation_seconds_ = 0;
  int64_t first_step_ = 0;
};

// Collective. GPUs connect at their first sum, which may wait forever.
void Trainer::connect() {
  watchdog_.progress("connecting the ranks");
  auto count = torch::ones({1}, torch::TensorOptions().device(device_));
  communicator_->sum(count);
  TORCH_CHECK(count.item<float>() == static_cast<float>(mpi_.size()), "the sum of ", mpi_.size(),
              " ones over as many ranks is ", count.item<float>());
  watchdog_.rest();
}

// Collective.
void Trainer::resume() {
  watchdog_.progress("loading the last checkpoint", Watchdog::kLong);
  // step, attempt, updates, best step, its success, whether `step` was validated
  auto counters = torch::zeros({6}, torch::kFloat64);
  counters[3] = -1.0;
  together([&] {
    if (mpi_.rank() != 0) return;
    const fs::path folder = config_.out_dir;
    make_folder(folder);
    lock_ = std::make_unique<FolderLock>(config_.out_dir, "out_dir");
    if (const auto checkpoint = find_newest_checkpoint(folder, std::cerr)) {
      check_same_run(checkpoint->config, config_);
      if (checkpoint->manifest_sha256 != manifest_.sha256)
        throw UserError(ExitCode::kConfiguration,
                        config_.out_dir + " holds a run on another dataset than " +
                            config_.dataset.path +
                            ": restore dataset.path, or choose another out_dir");
      restore(checkpoint->model, parameters_.views(parameters_.values));
      restore(checkpoint->first_moment, parameters_.views(optimizer_.first_moment));
      restore(checkpoint->second_moment, parameters_.views(optimizer_.second_moment));
      counters =
          torch::tensor({static_cast<double>(checkpoint->step),
                         static_cast<double>(checkpoint->attempt) + 1, checkpoint->updates,
                         static_cast<double>(checkpoint->best_step), checkpoint->best_success, 0.0},
                        torch::kFloat64);
    } else if (fs::exists(folder / "config.yaml")) {
      check_same_run(read_file(folder / "config.yaml"),
                     config_);  // a run that never reached a checkpoint
    } else {
      for (const char* name : {"metrics.jsonl", "model_training_log.txt", "DONE"})
        if (fs::exists(folder / name))
          throw UserError(ExitCode::kConfiguration,
                          (folder / name).string() +
                              " is there, but no config.yaml of a run: choose another out_dir, or "
                              "move it away");
    }
    if (counters[0].item<int64_t>() < plan_.steps) {
      check_disk();
      fs::remove(folder / "DONE");
    }
    publish_file(folder / "config.yaml", to_yaml(config_));
    metrics_.emplace(folder, counters[0].item<int64_t>());
    counters[5] = metrics_->validated();
  });
  watchdog_.progress("handing out the weights");
  communicator_->broadcast(counters);
  communicator_->broadcast(parameters_.values);  // equal seeds are no proof of equal weights
  communicator_->broadcast(optimizer_.first_moment);
  communicator_->broadcast(optimizer_.second_moment);
  parameters_.round_weights();
  step_ = counters[0].item<int64_t>();
  attempt_ = counters[1].item<int64_t>();
  optimizer_.updates.fill_(counters[2].item<double>());
  best_step_ = counters[3].item<int64_t>();
  best_success_ = counters[4].item<double>();
  validated_ = counters[5].item<double>() > 0;
  parameters_.values[0].item();  // a GPU has only been told of it until now
  watchdog_.rest();
}

// A new checkpoint is written beside the old ones before one of them goes.
void Trainer::check_disk() const {
  const double one = checkpoint_bytes(config_.model);
  const auto free = static_cast<double>(fs::space(config_.out_dir).available);
  if (free < 2 * one)
    throw UserError(ExitCode::kConfiguration, config_.out_dir + " has " + si_text(free, "B") +
                                                  " free, but a checkpoint takes " +
                                                  si_text(one, "B") +
                                                  ": free space, or choose another out_dir");
  const auto& training = config_.training;
  const auto permanent =
      static_cast<double>(training.keep_every_steps ? plan_.steps / training.keep_every_steps : 0);
  if (free < one * (permanent + static_cast<double>(training.keep_last)))
    std::cout << "warning: the checkpoints of this run need "
              << si_text(one * (permanent + static_cast<double>(training.keep_last)), "B") << ", "
              << config_.out_dir << " has " << si_text(free, "B")
              << " free: raise training.keep_every_steps" << std::endl;
}

void Trainer::say_banner(const std::string& attention) const {
  if (mpi_.rank() != 0) return;
  const int nodes = (mpi_.size() + mpi_.local_size() - 1) / mpi_.local_size();
  std::cout << describe_build() << "\n"
            << "ranks        " << mpi_.size() << " on " << nodes << " node(s), "
            << at::get_num_threads() << " thread(s) each, "
            << (bf16_instructions().empty() ? "no bf16 instructions" : bf16_instructions()) << "\n"
            << "device       " << devices_ << "\n"
            << (attention.empty() ? "" : "attention    " + attention + "\n") << "data         "
            << dataset_->size() << " trajectories of " << manifest_.steps << " steps in "
            << config_.dataset.path << ", verified\n"
            << describe(config_, plan_, static_cast<int64_t>(dataset_->size()), mpi_.size())
            << "output       " << config_.out_dir << ", "
            << (step_ ? "resumed at step " + std::to_string(step_) : std::string("a new run"))
            << "\n"
            << settings_text(config_) << std::flush;
  if (device_.is_cpu() && config_.training.precision == "bf16" && bf16_instructions().empty())
    std::cout
        << "advice: this processor has no bf16 instructions: training.precision fp32 is faster"
        << std::endl;
}

Checkpoint Trainer::snapshot() const {
  return {step_,
          attempt_,
          step_ > 0 ? plan_.curriculum.at(step_ - 1).window : 0,
          optimizer_.updates.item<double>(),
          best_step_,
          best_success_,
          to_yaml(config_),
          manifest_.sha256,
          parameters_.views(parameters_.values),
          parameters_.views(optimizer_.first_moment),
          parameters_.views(optimizer_.second_moment)};
}

// Rank 0 publishes; a failure is survivable: the run goes on and tries again at the next interval.
// Collective.
bool Trainer::save() {
  if (saved_step_ == step_) return true;
  watchdog_.progress("saving a checkpoint", Watchdog::kLong);
  int saved = 1;
  if (lock_) {
    lock_->check();
    try {
      for (const auto& trouble : publish_checkpoint(config_.out_dir, snapshot()))
        if (said_troubles_.insert(trouble).second) metrics_->say("warning: " + trouble);
      prune_checkpoints(config_.out_dir, step_, config_.training.keep_last,
                        config_.training.keep_every_steps, best_step_);
    } catch (const std::exception& error) {
      saved = 0;
      metrics_->say("warning: no checkpoint at step " + std::to_string(step_) + ": " +
                    error.what());
    }
  }
  MPI_Bcast(&saved, 1, MPI_INT, 0, MPI_COMM_WORLD);
  watchdog_.rest();
  if (saved) {
    saved_step_ = step_;
    failed_saves_ = 0;
  } else if (std::exchange(failed_step_, step_) != step_) {
    ++failed_saves_;
  }
  if (failed_saves_ == 3)
    agree("3 checkpoints in a row could not be written to " + config_.out_dir +
              ": free space or fix the folder, then start again to resume",
          ExitCode::kIo);
  return saved;
}

// Collective. One optimiser step, and the errors of one. A GPU has only been told of it on return.
void Trainer::start_step(BatchQueue& queue) {
  if (pending_.empty()) pending_since_ = MPI_Wtime();
  try {
    pending_.push_back(train_step_({queue.next(), step_orders(learning_rate(), asked_to_leave)}));
  } catch (const std::exception& error) {
    if (!is_out_of_memory(error)) throw;
    throw UserError(ExitCode::kConfiguration,
                    out_of_memory_advice(plan_.micro_batch, plan_.curriculum.at(step_).window,
                                         plan_.global_batch_size));
  }
  ++step_;
}

// Collective. Waits for the steps that were started, and logs them. True: a rank was asked to
// leave.
bool Trainer::collect_reports(BatchQueue& queue) {
  const double wait_begin = MPI_Wtime();
  const auto rows = torch::stack(pending_).cpu();
  const auto steps = static_cast<int64_t>(pending_.size());
  pending_.clear();
  const auto count = static_cast<double>(steps);
  const double now = MPI_Wtime(), waited = queue.waited_seconds();
  const StepTime time{(now - pending_since_) / count, (waited - waited_before_) / count,
                      device_.is_cuda() ? (now - wait_begin) / count : -1.0,
                      communicator_->exposed_seconds(steps)};
  waited_before_ = waited;
  if (lock_ && now - lock_checked_ > 1) {
    lock_->check();
    lock_checked_ = now;
  }
  bool leave = false;
  for (int64_t i = 0; i < steps; ++i) {
    const StepReport report(rows[i]);
    const int64_t step = step_ - steps + 1 + i;
    leave = leave || report.stop_requested;
    if (metrics_) log(step, report, time);
    skipped_in_a_row_ = std::isfinite(report.gradient_norm) ? 0 : skipped_in_a_row_ + 1;
    if (skipped_in_a_row_ == 3)
      agree("the gradient was not finite for 3 steps in a row, up to step " + std::to_string(step) +
                ": lower training.learning_rate, or check the data",
            ExitCode::kNoProgress);
  }
  if (device_.is_cuda()) {  // agreed on: all ranks look at the same step
    collect_every_ = steps_between_looks(time.seconds, config_.training.log_every_steps);
    MPI_Bcast(&collect_every_, 1, MPI_INT64_T, 0, MPI_COMM_WORLD);
  }
  return leave;
}

// Collective. Judges the weights after `step_` steps; a new best is saved before anything points to
// it.
void Trainer::validate_and_keep_best() {
  watchdog_.progress("validating", Watchdog::kLong);
  ControlModel judged = model_;
  if (config_.training.precision != "fp32") {  // what is judged is what evaluate_policy will load
    judged = ControlModel(config_.model);
    judged->to(device_);
    const torch::NoGradGuard no_grad;
    for (const auto& [name, values] : parameters_.views(parameters_.values))
      torch::Tensor(*judged->named_parameters().find(name)).copy_(values);
  }
  judged->eval();
  const auto report =
      validate(*validation_, manifest_.statistics, config_.validation, config_.model,
               plan_.curriculum.at(step_ - 1).window, judged, *communicator_);
  watchdog_.rest();
  validation_seconds_ += report.seconds;
  last_success_ = report.success;
  const std::pair former(decays_at(best_step_), best_success_),
      here(decays_at(step_), report.success);
  const bool best = best_step_ < 0 || here >= former;  // of equals, the longer trained
  if (metrics_) {
    const double share = validation_seconds_ / (MPI_Wtime() - begin_);
    metrics_->log({{"step", step_},
                   {"time", std::time(nullptr)},
                   {"validation_loss", report.loss},
                   {"validation_loss_force", report.loss_force},
                   {"validation_loss_mode", report.loss_mode},
                   {"validation_loss_dynamics", report.loss_dynamics},
                   {"success", report.success},
                   {"validation_trajectories", report.trajectories},
                   {"validation_seconds", report.seconds},
                   {"validation_time_share", share},
                   {"best", best},
                   {"attempt", attempt_}});
    const auto interval =
        wilson_interval(static_cast<size_t>(std::llround(report.success * report.trajectories)),
                        static_cast<size_t>(report.trajectories));
    char line[256];
    std::snprintf(line, sizeof line,
                  "step %7ld / %ld  validation: success %.3f [%.3f, %.3f] of %ld, loss %.3f; "
                  "%.1f s, %.0f %% of the time so far%s",
                  step_, plan_.steps, report.success, interval[0], interval[1], report.trajectories,
                  report.loss, report.seconds, 100 * share, best ? "; the best so far" : "");
    metrics_->say(line);
  }
  if (!best) return;
  const auto before = std::pair(best_step_, best_success_);
  best_step_ = step_;
  best_success_ = report.success;
  if (!save()) std::tie(best_step_, best_success_) = before;
}

std::string Trainer::progress_line(int64_t step, const StepReport& report) const {
  const double elapsed = MPI_Wtime() - begin_;
  const double left = elapsed / windows_ahead(plan_.curriculum, first_step_, step) *
                      windows_ahead(plan_.curriculum, step, plan_.steps);
  const int64_t window = plan_.curriculum.at(step - 1).window;
  const double rate = static_cast<double>(printed_.tokens) / printed_.seconds;
  char success[32] = "", use[32] = "", line[320];
  if (last_success_ >= 0) std::snprintf(success, sizeof success, "success %.3f  ", last_success_);
  if (peak_flops_ > 0)
    std::snprintf(use, sizeof use, "MFU %.0f %%  ",
                  100 * rate * flops_per_token(config_.model, window) / peak_flops_);
  std::snprintf(line, sizeof line,
                "step %7ld / %ld  loss %.3f (force %.3f mode %.3f dynamics %.3f)  %slr %.1e  |g| "
                "%.2f  window %ld  %s tokens/s  %s%s left",
                step, plan_.steps, report.loss, report.loss_force, report.loss_mode,
                report.loss_dynamics, success,
                learning_rate_at(config_.training, step - 1, plan_.steps), report.gradient_norm,
                window, short_number(rate).c_str(), use, clock_text(left).c_str());
  return line;
}

// Rank 0.
void Trainer::log(int64_t step, const StepReport& report, const StepTime& time) {
  for (auto* interval : {&logged_, &printed_, &all_}) {
    ++interval->steps;
    interval->tokens += report.tokens;
    interval->seconds += time.seconds;
    interval->waited += time.data_wait;
    interval->exposed += time.exposed;
  }
  const Lesson lesson = plan_.curriculum.at(step - 1);
  if (step % config_.training.log_every_steps == 0) {
    const double rate = static_cast<double>(logged_.tokens) / logged_.seconds;
    const double flops = rate * flops_per_token(config_.model, lesson.window);
    const auto steps = static_cast<double>(logged_.steps);
    nlohmann::ordered_json line = {
        {"step", step},
        {"time", std::time(nullptr)},
        {"loss", report.loss},
        {"loss_force", report.loss_force},
        {"loss_mode", report.loss_mode},
        {"loss_dynamics", report.loss_dynamics},
        {"learning_rate", learning_rate_at(config_.training, step - 1, plan_.steps)},
        {"gradient_norm", report.gradient_norm},
        {"window", lesson.window},
        {"stage", lesson.stage},
        {"tokens", report.tokens},
        {"step_seconds", logged_.seconds / steps},
        {"exposed_communication_seconds", logged_.exposed / steps},
        {"tokens_per_second", rate},
        {"tflops", flops / 1e12},
        {"data_wait_share", logged_.waited / logged_.seconds},
        {"attempt", attempt_}};
    if (peak_flops_ > 0) line["mfu"] = flops / peak_flops_;
    metrics_->log(line);
    logged_ = {};
  }
  if (const auto advice = advice_.observe(report.loss, time)) metrics_->say(*advice);
  if (!std::isfinite(report.gradient_norm))
    metrics_->say("warning: step " + std::to_string(step) +
                  ": the gradient is not finite, the update was skipped");
  const bool last = step == plan_.steps || report.stop_requested;
  if (step % config_.training.print_every_steps == 0 || last) {
    metrics_->record(progress_line(step, report));
    printed_ = {};
  } else if (metrics_->live() && MPI_Wtime() - last_progress_ > 0.5) {
    metrics_->progress(progress_line(step, report));
    last_progress_ = MPI_Wtime();
  }
}

ExitCode Trainer::run() {
  watchdog_.watch_for([this] { return communicator_->error(); });
  connect();
  resume();
  watchdog_.progress("choosing the attention");
  const auto attention =
      choose_attention(device_, config_, plan_.curriculum.points().end, *communicator_);
  watchdog_.rest();
  say_banner(attention);
  const bool complete = step_ >= plan_.steps;
  const auto& training = config_.training;
  const auto due = [&](int64_t every) { return every > 0 && step_ % every == 0; };
  begin_ = MPI_Wtime();
  first_step_ = step_;
  BatchQueue queue(
      [this](int64_t step) {
        auto batches = loader_->share(step, mpi_.rank(), plan_.rows, plan_.micro_batch,
                                      plan_.curriculum.at(step));
        for (auto& batch : batches) batch = staged(batch, device_);
        return batches;
      },
      step_, plan_.steps, steps_ahead(plan_));
  // A run that was asked to leave when a validation was due left first.
  if (!complete && step_ > 0 && due(training.validate_every_steps) && !validated_)
    validate_and_keep_best();
  while (step_ < plan_.steps) {
    watchdog_.progress("training up to step " + std::to_string(step_ + 1));
    start_step(queue);
    const bool last = step_ == plan_.steps;
    const bool validating =
        training.validate_every_steps && (due(training.validate_every_steps) || last);
    const bool saving = due(training.save_every_steps);
    // A GPU is not asked how it is doing at every step: it would wait for the question.
    const bool looking = static_cast<int64_t>(pending_.size()) >= collect_every_;
    if (!last && !validating && !saving && !looking) continue;
    const bool leaving = collect_reports(queue);
    watchdog_.rest();
    if (validating && (last || !leaving)) validate_and_keep_best();
    if (last) break;
    if (leaving) {
      if (!save())
        agree("asked to leave, but the checkpoint could not be written to " + config_.out_dir,
              ExitCode::kIo);
      if (metrics_)
        metrics_->say("step " + std::to_string(step_) +
                      " saved, leaving as asked; start again to resume");
      return ExitCode::kAskedToLeave;
    }
    if (saving) save();
  }
  if (!complete && !save())
    agree("the last checkpoint could not be written to " + config_.out_dir, ExitCode::kIo);
  together([&] {
    if (!metrics_) return;
    if (complete) {
      std::cout << "nothing to do: the run is complete at step " << step_ << std::endl;
    } else {
      char line[256];
      std::snprintf(line, sizeof line,
                    "done: step %ld, %s, %s tokens/s on %d ranks while training, %.1f %% of it "
                    "waiting for data",
                    step_, clock_text(MPI_Wtime() - begin_).c_str(),
                    short_number(static_cast<double>(all_.tokens) / all_.seconds).c_str(),
                    mpi_.size(), 100 * all_.waited / all_.seconds);
      metrics_->say(line);
    }
    if (!fs::exists(fs::path(config_.out_dir) / "DONE"))
      publish_file(fs::path(config_.out_dir) / "DONE", std::to_string(step_) + "\n");
  });
  return ExitCode::kDone;
}

// Collective. Says what the run would cost before it looks at the dataset, which may not exist yet.
ExitCode dry_run(const Config& config, const MpiSession& mpi, Watchdog& watchdog) {
  together([&] {
    const int64_t trajectories =
        config.dataset.train_shards * config.dataset.trajectories_per_shard;
    const RunPlan plan = plan_run(config, trajectories, mpi.size());
    if (mpi.rank() == 0)
      std::cout << describe_build() << "\n"
                << describe(config, plan, trajectories, mpi.size()) << settings_text(config)
                << std::flush;
  });
  verified_manifest(config, mpi, watchdog);
  if (mpi.rank() == 0)
    std::cout << "data         " << config.dataset.path << ", verified\n"
              << "dry run: nothing was trained or written" << std::endl;
  return ExitCode::kDone;
}

}  // namespace

void catch_stop_signal() {
  sigset_t stop;
  sigemptyset(&stop);
  sigaddset(&stop, SIGUSR1);
  // Launchers answer Ctrl-C and TERM themselves, and end ranks by TERM; without one it is a person
  // who asks.
  const auto launched = [](const char* name) { return std::getenv(name) != nullptr; };
  if (!launched("OMPI_COMM_WORLD_SIZE") && !launched("PMIX_RANK") && !launched("PMI_RANK"))
    for (const int signal : {SIGINT, SIGTERM}) sigaddset(&stop, signal);
  pthread_sigmask(SIG_BLOCK, &stop, nullptr);
  std::thread([stop] {
    int signal = 0;
    while (sigwait(&stop, &signal) == 0) {
      if (signal != SIGUSR1 && asked_to_leave) std::_Exit(128 + signal);
      if (signal != SIGUSR1)
        std::cerr << "train_gpt2: saving a checkpoint and leaving; once more ends it at once"
                  << std::endl;
      asked_to_leave = true;
    }
  }).detach();
}

ExitCode train(const Config& config, const MpiSession& mpi) {
  at::set_num_threads(mpi.processors());
  at::globalContext().setFlushDenormal(true);
  keep_freed_memory();
  Watchdog watchdog(
      static_cast<double>(config.training.hang_seconds), [] { return std::string(); },
      [&mpi](const std::string& reason) { end_job(mpi, reason, ExitCode::kHang); });
  if (config.dry_run) return dry_run(config, mpi, watchdog);
  return Trainer(config, mpi, watchdog).run();
}
