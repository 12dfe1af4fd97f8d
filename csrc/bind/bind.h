// The parts of the Python module; each adds its functions or classes.
#pragma once
#include <pybind11/pybind11.h>

#include <string>

#include "core/device.h"

namespace convlet::bind {

void bind_device_array(pybind11::module_& module);   // arrays of other libraries on a GPU
void bind_linear(pybind11::module_& module);         // conv2d, dense, bias gradient
void bind_pool2d(pybind11::module_& module);         // max and average pooling
void bind_elementwise(pybind11::module_& module);    // activations, softmax, dropout, unary
void bind_tensor(pybind11::module_& module);         // broadcasting, reductions, matmul, upsampling
void bind_sequence(pybind11::module_& module);       // attention, recurrent layers
void bind_augment(pybind11::module_& module);        // augmentation of images
void bind_loss(pybind11::module_& module);           // softmax cross-entropy, elementwise losses
void bind_normalization(pybind11::module_& module);  // batch, layer and group normalization
void bind_optimizer(pybind11::module_& module);      // one update
void bind_image(pybind11::module_& module);          // what the loader does to images
void bind_plan(pybind11::module_& module);           // Graph, State, Plan

// ValueError that begins with `what` unless this build has a device of that name.
Device& device_named(const char* what, const std::string& name);

// Adds the device of a shared library with the functions of csrc/cuda/device.cu's end, for tests;
// returns its name.
std::string load_device(const std::string& path);

}  // namespace convlet::bind
