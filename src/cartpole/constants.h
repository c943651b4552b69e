// What every part of the simulation agrees on. No library code: files that are compiled for newer
// processors include this.
#pragma once

constexpr int kStateSize = 4;  // x, x_dot, theta, theta_dot

// What all plants of a world have in common.
struct PlantConstants {
  double period = 0.02;       // s, between commands; the force is held over it
  double force_limit = 10.0;  // N, symmetric
  double track_limit = 2.4;   // m, symmetric
  double gravity = 9.81;      // m/s^2

  friend bool operator==(const PlantConstants&, const PlantConstants&) = default;
};

// Success: |theta| < 0.1 rad and |theta_dot| < 0.5 rad/s over the last 5 s, never off the track.
constexpr double kSuccessAngle = 0.1, kSuccessRate = 0.5, kSuccessSeconds = 5.0;

// Of the force limit, standard deviation; see Disturbance.
constexpr double kExcitationShare = 0.5;
