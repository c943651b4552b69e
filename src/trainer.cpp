#include "trainer.h"

#include <fcntl.h>
#include <malloc.h>
#include <sys/file.h>
#include <unistd.h>

#include <climits>
#include <cmath>
#include <csignal>
#include <iostream>
#include <map>
#include <memory>
#include <optional>

#include "checkpoint.h"
#include "curriculum.h"
#include "durable_file.h"
#include "metrics.h"
#include "train_step.h"

namespace fs = std::filesystem;

namespace {

volatile std::sig_atomic_t asked_to_leave = 0;

struct Run {  // what the configuration amounts to on this many ranks
  int64_t steps, global_batch_size, rows, micro_batch;
  PointsCurriculumConfig points;
};

Run plan(const Config& config, int64_t trajectories, int ranks) {
  const auto& training = config.training;
  Run run{};
  const int64_t at_once = training.batch_size * ranks;
  run.global_batch_size = training.global_batch_size ? training.global_batch_size : at_once;
  if (run.global_batch_size % at_once)
    throw UserError(ExitCode::kConfiguration,
                    "training.global_batch_size " + std::to_string(run.global_batch_size) +
                        " is not a multiple of " + std::to_string(ranks) +
                        " ranks x training.batch_size " + std::to_string(training.batch_size) +
                        ": change one of the three (batch_size changes speed and memory only)");
  run.rows = run.global_batch_size / ranks;
  run.micro_batch = training.batch_size;
  // Rounded up: the last step of the last epoch may begin the next.
  const double by_epochs =
      std::ceil(static_cast<double>(training.epochs) * static_cast<double>(trajectories) /
                static_cast<double>(run.global_batch_size));
  run.steps = std::min(training.train_steps, static_cast<int64_t>(std::min(by_epochs, 9e18)));
  run.points = resolve_curriculum(training.points, config.model.n_positions, run.steps);
  return run;
}

// Refuses an output folder that another configuration wrote, as its YAML says; settings that change
// no number of the training may differ.
void check_same_run(const std::string& former, const Config& config) {
  const auto there = flatten_yaml(former), here = flatten_yaml(to_yaml(config));
  for (const auto& [key, value] : here) {
    const bool free = key == "out_dir" || key == "training.batch_size" ||
                      key == "training.save_every_steps" || key == "training.keep_every_steps" ||
                      key == "training.keep_last" || key == "training.log_every_steps" ||
                      key.starts_with("dataset.") || key.starts_with("evaluation.");
    const auto found = there.find(key);
    if (!free && (found == there.end() || found->second != value))
      throw UserError(ExitCode::kConfiguration,
                      config.out_dir + " holds a run of another configuration: " + key + " was " +
                          (found == there.end() ? "not set" : found->second) + " and is now " +
                          value + ". Restore the setting, or choose another out_dir");
  }
}

// What differs from the defaults, on one line.
std::string changed_settings(const Config& config) {
  const auto defaults = flatten_yaml(to_yaml(Config{}));
  std::string text;
  for (const auto& [key, value] : flatten_yaml(to_yaml(config)))
    if (defaults.at(key) != value) text += (text.empty() ? "" : ", ") + key + " " + value;
  return text;
}

// Held while a run writes to its folder; the kernel lets go when the process ends, however it ends.
class FolderLock {
 public:
  explicit FolderLock(const std::string& folder)
      : descriptor_(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
    if (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
      throw UserError(ExitCode::kConfiguration, "another process is training in " + folder +
                                                    ": wait for it, or choose another out_dir");
  }
  ~FolderLock() { ::close(descriptor_); }
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int descriptor_;
};

// Tensors by name into views of the flat buffers.
void restore(const NamedTensors& stored, const NamedTensors& views) {
  TORCH_CHECK(stored.size() == views.size(), "checkpoint: holds ", stored.size(),
              " tensors, expected ", views.size());
  const std::map<std::string, torch::Tensor> by_name(stored.begin(), stored.end());
  for (const auto& [name, view] : views) torch::Tensor(view).copy_(by_name.at(name));
}

class Trainer {
 public:
  Trainer(const Config& config, const MpiSession& mpi)
      : config_(config),
        mpi_(mpi),
        manifest_(verified_manifest()),
        run_(plan_run()),
        dataset_(mapped_train_split()),
        loader_(*dataset_, manifest_.statistics, config_, run_.global_batch_size),
        model_(seeded_model()),
        parameters_(*model_),
        optimizer_(parameters_, config_.training) {}

  ExitCode run();

 private:
  // Collective: the ranks of a node share the hashing.
  Manifest verified_manifest() const {
    Manifest manifest;
    together([&] {
      manifest = Manifest::read(config_.dataset.path);
      std::string damage = manifest.find_damage("train", static_cast<size_t>(mpi_.local_rank()),
                                                static_cast<size_t>(mpi_.local_size()));
      if (damage.empty() && static_cast<int64_t>(manifest.steps) < config_.model.n_positions)
        damage = config_.dataset.path + " has trajectories of " + std::to_string(manifest.steps) +
                 " steps, fewer than model.n_positions " +
                 std::to_string(config_.model.n_positions);
      if (!damage.empty()) throw UserError(ExitCode::kData, damage);
    });
    return manifest;
  }
  // Collective. Also fixes the global batch size in config_, so that what is saved says what was
  // trained.
  Run plan_run() {
    Run run{};
    together([&] {
      run = plan(config_, static_cast<int64_t>(manifest_.trajectories("train")), mpi_.size());
      config_.training.global_batch_size = run.global_batch_size;
    });
    return run;
  }
  // Collective.
  std::unique_ptr<Dataset> mapped_train_split() const {
    std::unique_ptr<Dataset> dataset;
    together([&] { dataset = std::make_unique<Dataset>(manifest_, "train"); });
    return dataset;
  }
  ControlModel seeded_model() const {
    torch::manual_seed(static_cast<uint64_t>(config_.seed));
    return ControlModel(config_.model);
  }

  void resume();
  void say_banner() const;
  Checkpoint snapshot() const;
  bool save();
  void log(const StepPlan& plan, const StepReport& report, double step_seconds);

  Config config_;
  const MpiSession& mpi_;
  Manifest manifest_;
  Run run_;
  std::unique_ptr<Dataset> dataset_;
  Loader loader_;
  ControlModel model_;
  FlatParameters parameters_;
  AdamW optimizer_;
  Communicator communicator_;
  std::unique_ptr<FolderLock> lock_;  // rank 0
  std::optional<Metrics> metrics_;    // rank 0
  int64_t step_ = 0, attempt_ = 0, failed_saves_ = 0;
  double last_line_ =
      0;  // when, at which step and after how many tokens the last progress line was said
  int64_t last_line_step_ = 0, last_line_tokens_ = 0, tokens_ = 0;
};

// Collective.
void Trainer::resume() {
  auto counters = torch::zeros({3}, torch::kFloat64);  // step, attempt, updates
  together([&] {
    if (mpi_.rank() != 0) return;
    const fs::path folder = config_.out_dir;
    make_folder(folder);
    lock_ = std::make_unique<FolderLock>(config_.out_dir);
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
      counters = torch::tensor({static_cast<double>(checkpoint->step),
                                static_cast<double>(checkpoint->attempt) + 1, checkpoint->updates},
                               torch::kFloat64);
    } else if (fs::exists(folder / "config.yaml")) {
      check_same_run(read_file(folder / "config.yaml"),
                     config_);  // a run that never reached a checkpoint
    }
    if (counters[0].item<int64_t>() < run_.steps) fs::remove(folder / "DONE");
    publish_file(folder / "config.yaml", to_yaml(config_));
    metrics_.emplace(folder, counters[0].item<int64_t>());
  });
  communicator_.broadcast(counters);
  communicator_.broadcast(parameters_.values);  // equal seeds are no proof of equal weights
  communicator_.broadcast(optimizer_.first_moment);
  communicator_.broadcast(optimizer_.second_moment);
  step_ = counters[0].item<int64_t>();
  attempt_ = counters[1].item<int64_t>();
  optimizer_.updates.fill_(counters[2].item<double>());
}

void Trainer::say_banner() const {
  char mpi_version[MPI_MAX_LIBRARY_VERSION_STRING];
  int length = 0;
  MPI_Get_library_version(mpi_version, &length);
  const std::string library =
      std::string(mpi_version).substr(0, std::string(mpi_version).find(','));
  std::cout << "train_gpt2: " << mpi_.size() << " ranks on "
            << (mpi_.size() + mpi_.local_size() - 1) / mpi_.local_size() << " node(s), "
            << at::get_num_threads() << " thread(s) each, CPU; LibTorch " << TORCH_VERSION << ", "
            << library << "\n"
            << "model: " << config_.model.n_layer << " layers x " << config_.model.n_embd << ", "
            << config_.model.n_head << " heads, " << config_.model.n_positions
            << " positions: " << parameters_.size() << " parameters\n"
            << "data: " << dataset_->size() << " trajectories of " << manifest_.steps
            << " steps in " << config_.dataset.path << ", verified\n"
            << "run: " << run_.steps << " steps of " << run_.global_batch_size << " windows, "
            << window_length(run_.points, 0) << " to " << run_.points.end << " control steps each, "
            << static_cast<double>(run_.steps * run_.global_batch_size) /
                   static_cast<double>(dataset_->size())
            << " epochs; in " << config_.out_dir
            << (step_ ? ", resumed at step " + std::to_string(step_) : "") << "\n"
            << "settings: " << changed_settings(config_) << "; all of them in " << config_.out_dir
            << "/config.yaml" << std::endl;
}

Checkpoint Trainer::snapshot() const {
  return {step_,
          attempt_,
          step_ > 0 ? window_length(run_.points, step_ - 1) : 0,
          optimizer_.updates.item<double>(),
          to_yaml(config_),
          manifest_.sha256,
          parameters_.views(parameters_.values),
          parameters_.views(optimizer_.first_moment),
          parameters_.views(optimizer_.second_moment)};
}

// Rank 0 publishes; a failure is survivable: the run goes on and tries again at the next interval.
// Collective.
bool Trainer::save() {
  int saved = 1;
  if (mpi_.rank() == 0) {
    try {
      publish_checkpoint(config_.out_dir, snapshot());
      prune_checkpoints(config_.out_dir, step_, config_.training.keep_last,
                        config_.training.keep_every_steps);
    } catch (const std::exception& error) {
      saved = 0;
      metrics_->say("warning: no checkpoint at step " + std::to_string(step_) + ": " +
                    error.what());
    }
  }
  MPI_Bcast(&saved, 1, MPI_INT, 0, MPI_COMM_WORLD);
  failed_saves_ = saved ? 0 : failed_saves_ + 1;
  if (failed_saves_ == 3)
    agree("3 checkpoints in a row could not be written to " + config_.out_dir +
              ": free space or fix the folder, then start again to resume",
          ExitCode::kIo);
  return saved;
}

void Trainer::log(const StepPlan& plan, const StepReport& report, double step_seconds) {
  if (step_ % config_.training.log_every_steps == 0)
    metrics_->log({{"step", step_},
                   {"loss", report.loss},
                   {"loss_force", report.loss_force},
                   {"loss_mode", report.loss_mode},
                   {"loss_dynamics", report.loss_dynamics},
                   {"learning_rate", plan.learning_rate},
                   {"gradient_norm", report.gradient_norm},
                   {"window", plan.window},
                   {"tokens", report.tokens},
                   {"step_seconds", step_seconds},
                   {"attempt", attempt_}});
  const double now = MPI_Wtime(), elapsed = now - last_line_;
  if (elapsed < 10.0 && step_ < run_.steps && !report.stop_requested) return;
  char line[256];
  std::snprintf(line, sizeof line,
                "step %7ld / %ld  loss %.3f (force %.3f mode %.3f dynamics %.3f)  lr %.1e  |g| "
                "%.2f  window %ld  "
                "%s tokens/s  %s left",
                step_, run_.steps, report.loss, report.loss_force, report.loss_mode,
                report.loss_dynamics, plan.learning_rate, report.gradient_norm, plan.window,
                short_number(static_cast<double>(tokens_ - last_line_tokens_) / elapsed).c_str(),
                clock_text(elapsed / static_cast<double>(step_ - last_line_step_) *
                           static_cast<double>(run_.steps - step_))
                    .c_str());
  metrics_->say(line);
  last_line_ = now;
  last_line_step_ = step_;
  last_line_tokens_ = tokens_;
}

ExitCode Trainer::run() {
  resume();
  if (mpi_.rank() == 0) say_banner();
  const bool complete = step_ >= run_.steps;
  const double begin = last_line_ = MPI_Wtime();
  last_line_step_ = step_;
  int64_t skipped_in_a_row = 0;
  while (step_ < run_.steps) {
    const double step_begin = MPI_Wtime();
    const StepPlan plan{step_,
                        window_length(run_.points, step_),
                        run_.rows,
                        run_.micro_batch,
                        learning_rate_at(config_.training, step_, run_.steps),
                        asked_to_leave != 0};
    const StepReport report = train_step(plan, loader_, manifest_.statistics, model_, parameters_,
                                         optimizer_, communicator_);
    ++step_;
    tokens_ += report.tokens;
    if (metrics_) log(plan, report, MPI_Wtime() - step_begin);

    skipped_in_a_row = std::isfinite(report.gradient_norm) ? 0 : skipped_in_a_row + 1;
    if (skipped_in_a_row == 3)
      agree("the gradient was not finite for 3 steps in a row, up to step " +
                std::to_string(step_) + ": lower training.learning_rate, or check the data",
            ExitCode::kNoProgress);
    if (step_ == run_.steps) break;
    if (report.stop_requested) {
      if (!save())
        agree("asked to leave, but the checkpoint could not be written to " + config_.out_dir,
              ExitCode::kIo);
      if (metrics_)
        metrics_->say("step " + std::to_string(step_) +
                      " saved, leaving as asked; start again to resume");
      return ExitCode::kAskedToLeave;
    }
    if (step_ % config_.training.save_every_steps == 0) save();
  }
  if (!complete && !save())
    agree("the last checkpoint could not be written to " + config_.out_dir, ExitCode::kIo);
  together([&] {
    if (!metrics_) return;
    const double seconds = MPI_Wtime() - begin;
    if (complete)
      std::cout << "nothing to do: the run is complete at step " << step_ << std::endl;
    else
      metrics_->say("done: step " + std::to_string(step_) + ", " + clock_text(seconds) + ", " +
                    short_number(static_cast<double>(tokens_) / seconds) + " tokens/s on " +
                    std::to_string(mpi_.size()) + " ranks");
    if (!fs::exists(fs::path(config_.out_dir) / "DONE"))
      publish_file(fs::path(config_.out_dir) / "DONE", std::to_string(step_) + "\n");
  });
  return ExitCode::kDone;
}

}  // namespace

void catch_stop_signal() {
  std::signal(SIGUSR1, [](int) { asked_to_leave = 1; });
}

ExitCode train(const Config& config, const MpiSession& mpi) {
  at::set_num_threads(mpi.processors());
  at::globalContext().setFlushDenormal(true);
  // Activations are freed and allocated again at every step: keep their pages instead of returning
  // them to the kernel.
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, INT_MAX);
  return Trainer(config, mpi).run();
}
