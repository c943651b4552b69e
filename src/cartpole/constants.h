// What every part of the simulation agrees on. Constants only: files that are compiled for newer
// processors include this.
#pragma once

constexpr double kGravity = 9.81;      // m/s^2
constexpr double kStepSeconds = 0.02;  // control period; the force is held over it
constexpr double kForceLimit = 10.0;   // N, symmetric
constexpr double kTrackLimit = 2.4;    // m, symmetric
constexpr int kStateSize = 4;          // x, x_dot, theta, theta_dot

// Success: |theta| < 0.1 rad and |theta_dot| < 0.5 rad/s over the last 250 periods (5 s), never off
// the track.
constexpr double kSuccessAngle = 0.1, kSuccessRate = 0.5;
constexpr int kSuccessSteps = 250;

constexpr double kExcitationForce = 0.5 * kForceLimit;  // N, standard deviation; see Disturbance
