// README.md of an exported folder, for whoever gets it without this project.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

// `controller`: controller.json; `evaluation`: evaluation.json of the same step, or null.
std::string model_card(const nlohmann::ordered_json& controller, const nlohmann::json& evaluation);
