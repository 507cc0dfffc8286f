// A heat map from an exported model, in C++17 on Linux or macOS. In a copy of this folder:
//
//   c++ -std=c++17 -O2 -pthread -isystem HEADERS heatmap.cpp -ldl -o heatmap
//   ONNXRUNTIME=LIBRARY ./heatmap FOLDER [IMAGE.bin] [--threads N] [--out map.bin]
//
// HEADERS has onnxruntime_cxx_api.h, LIBRARY is a libonnxruntime.so of that version or a later one. FOLDER is what `kcompiler
// export` wrote. The image is raw little-endian float32, preprocessed, channels first; without one, the folder's own test image
// is taken and the map compared with the test map.
#include <atomic>
#include <future>
#include <getopt.h>
#include <iostream>
#include <mutex>

#include "arrays.h"
#include "checksums.h"
#include "runtime.h"

// Writes the scores of the first batches into the map; returns the class that has the largest output of the uncovered image.
int64_t evaluate(Model& model, Floats& image, Floats& fill, int64_t batches, int threads, Floats& map) {
    const Shape shape = model.input_shape(0);
    const char *given[] = {"image", "fill", "target", "batches"}, *wanted[] = {"map", "class"};
    const int64_t step = std::max<int64_t>(1, batches / 4 / threads);  // each call repeats the pass over the uncovered image
    std::atomic<int64_t> next{0};
    int64_t done = 0, chosen = -1;
    std::mutex merging;
    const auto work = [&] {
        for (int64_t first; (first = next.fetch_add(step)) < batches;) {
            std::vector<int64_t> target{-1}, share{first, std::min(step, batches - first)};
            const Ort::Value inputs[] = {tensor(image, shape), tensor(fill, {shape[1]}), tensor(target, {1}), tensor(share, {2})};
            const auto outputs = model.session.Run(Ort::RunOptions(nullptr), given, inputs, 4, wanted, 2);
            const float* scores = outputs[0].GetTensorData<float>();
            const std::lock_guard<std::mutex> lock(merging);
            for (size_t at = 0; at < map.size(); ++at) map[at] = std::isnan(scores[at]) ? map[at] : scores[at];
            chosen = *outputs[1].GetTensorData<int64_t>();
            done += share[1];
            std::cerr << '\r' << done << " of " << batches << " batches" << (done == batches ? "\n" : "");
        }
    };
    std::vector<std::future<void>> running;
    for (int thread = 0; thread < threads; ++thread) running.push_back(std::async(std::launch::async, work));
    for (auto& thread : running) thread.get();
    return chosen;
}

bool run(const Path& folder, const Path& path, int threads, const Path& out) {
    check_files(folder);
    load_runtime();
    Model model(folder / "map.onnx");
    const bool test = path.empty();
    Floats image = read_floats(test ? folder / "test-image.bin" : path, model.input_shape(0));
    Floats fill(model.input_shape(1)[0], test ? model.property("test.fill") : 0);
    const Floats expected = read_floats(folder / "test-map.bin", model.output_shape(0));
    Floats map(expected.size(), NAN);
    const int64_t chosen = evaluate(model, image, fill, model.property(test ? "test.batches" : "batches"), threads, map);
    const Range scores(map);
    std::cout << "class " << chosen << ", " << scores.known << " positions, " << scores.low << " to " << scores.high << "\n";
    if (!out.empty()) write_floats(out, map);
    if (!test) return true;
    std::cout << "largest difference from the test map: " << difference_of(map, expected) << " of its range\n";
    if (chosen != model.property("test.class") || scores.known != Range(expected).known) return false;
    return difference_of(map, expected) <= model.property("test.tolerance");
}

int main(int count, char** words) {
    const option options[] = {{"threads", required_argument, nullptr, 't'}, {"out", required_argument, nullptr, 'o'}, {}};
    int threads = 2;
    Path out;
    for (int letter; (letter = getopt_long(count, words, "o:", options, nullptr)) != -1;) {
        if (letter == 'o') out = optarg;
        else threads = letter == 't' ? std::atoi(optarg) : 0;
    }
    try {
        if (count == optind || threads < 1) throw std::runtime_error("heatmap FOLDER [IMAGE.bin] [--threads N] [--out map.bin]");
        return run(words[optind], count > optind + 1 ? words[optind + 1] : "", threads, out) ? 0 : 1;
    } catch (const std::exception& error) {
        std::cerr << error.what() << "\n";
        return 1;
    }
}
