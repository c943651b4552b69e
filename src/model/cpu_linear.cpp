#include "model/cpu_linear.h"

#include <ATen/core/dispatch/Dispatcher.h>

#include "program/processor.h"

namespace {

// a [N, K] . transpose(b [M, K]) + bias [M]; any strides.
torch::Tensor product(const torch::Tensor& a, const torch::Tensor& b,
                      const std::optional<torch::Tensor>& bias = {}) {
  using Product = at::Tensor(const at::Tensor&, const at::Tensor&, const std::optional<at::Tensor>&,
                             std::string_view, c10::List<std::optional<at::Scalar>>,
                             std::optional<std::string_view>);
  static const auto onednn = c10::Dispatcher::singleton()
                                 .findSchemaOrThrow("mkldnn::_linear_pointwise", "")
                                 .typed<Product>();
  return onednn.call(a, b, bias, "none", c10::List<std::optional<at::Scalar>>(), "");
}

struct CpuLinear : torch::autograd::Function<CpuLinear> {
  static torch::Tensor forward(torch::autograd::AutogradContext* context, const torch::Tensor& x,
                               const torch::Tensor& weight, const torch::Tensor& bias) {
    context->save_for_backward({x, weight});
    return product(x, weight.t(), bias);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& gradients) {
    const auto saved = context->get_saved_variables();
    const auto gradient = gradients[0].contiguous();
    return {product(gradient, saved[1]), product(saved[0].t(), gradient.t()), gradient.sum(0)};
  }
};

}  // namespace

bool has_cpu_linear(const torch::Tensor& x, const torch::Tensor& weight) {
  return at::GradMode::is_enabled() && weight.requires_grad() && x.device().is_cpu() &&
         x.scalar_type() == torch::kFloat32 && at::hasMKLDNN() && has_avx512();
}

torch::Tensor cpu_linear(const torch::Tensor& x, const torch::Tensor& weight,
                         const torch::Tensor& bias) {
  return CpuLinear::apply(x, weight, bias);
}
