// A map model in ONNX Runtime, which is loaded when the program starts: headers and library may be of different versions.
#pragma once
#define ORT_API_MANUAL_INIT
#include <dlfcn.h>
#include <onnxruntime_cxx_api.h>

#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#include "arrays.h"

// Loads the library that the environment variable ONNXRUNTIME names. Nothing of namespace Ort works before.
inline void load_runtime() {
    const char* given = std::getenv("ONNXRUNTIME");
    const std::string path = given ? given : "libonnxruntime.so";
    void* library = dlopen(path.c_str(), RTLD_NOW);
    if (!library) throw std::runtime_error("set ONNXRUNTIME to the library of ONNX Runtime (" + std::string(dlerror()) + ")");
    const auto base = reinterpret_cast<const OrtApiBase* (*)()>(dlsym(library, "OrtGetApiBase"));
    if (!base) throw std::runtime_error(path + ": is not the library of ONNX Runtime");
    const OrtApi* api = base()->GetApi(ORT_API_VERSION);
    if (!api) {
        const std::string found = path + ": is ONNX Runtime " + base()->GetVersionString();
        const std::string wanted = ", older than the headers, of 1." + std::to_string(ORT_API_VERSION);
        throw std::runtime_error(found + wanted + "; take a newer library or older headers");
    }
    Ort::InitApi(api);
}

// A tensor that reads the numbers where they are; they must live as long as it does.
template <typename T>
Ort::Value tensor(std::vector<T>& values, const Shape& shape) {
    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    return Ort::Value::CreateTensor<T>(memory, values.data(), values.size(), shape.data(), shape.size());
}

struct Model {
    explicit Model(const Path& path) : name(path.string()) {
        Ort::SessionOptions options;
        options.SetIntraOpNumThreads(1).DisableMemPattern();  // calls run side by side, and their batches differ in shape
        try {
            session = Ort::Session(environment, path.c_str(), options);
        } catch (const Ort::Exception& error) {
            throw std::runtime_error(name + ": " + error.what());
        }
        if (session.GetInputNames() != std::vector<std::string>{"image", "fill", "target", "batches"})
            throw std::runtime_error(name + ": takes other inputs; export without --preprocess and --drill-down");
        if (property("format") != 2)
            throw std::runtime_error(name + ": its format is not 2; export again or copy a newer program");
    }

    Shape input_shape(size_t number) const { return session.GetInputTypeInfo(number).GetTensorTypeAndShapeInfo().GetShape(); }
    Shape output_shape(size_t number) const { return session.GetOutputTypeInfo(number).GetTensorTypeAndShapeInfo().GetShape(); }

    // A number that the export wrote into the metadata: of batches, or about the test vector.
    double property(const std::string& key) const {
        Ort::AllocatorWithDefaultOptions allocator;
        const auto text = session.GetModelMetadata().LookupCustomMetadataMapAllocated(("kcompiler." + key).c_str(), allocator);
        char* end = nullptr;
        const double number = text ? std::strtod(text.get(), &end) : 0;
        if (!text || end == text.get() || *end)
            throw std::runtime_error(name + ": has no number as metadata kcompiler." + key + "; export the model again");
        return number;
    }

    std::string name;
    Ort::Env environment{ORT_LOGGING_LEVEL_WARNING, "heatmap"};
    Ort::Session session{nullptr};
};
