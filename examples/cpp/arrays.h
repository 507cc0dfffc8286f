// Float32 arrays in raw files, little-endian as on the machines that this runs on, and what is said of them.
#pragma once
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

using Path = std::filesystem::path;
using Floats = std::vector<float>;
using Shape = std::vector<std::int64_t>;

// An array of that shape, and no other, from a file.
inline Floats read_floats(const Path& path, const Shape& shape) {
    std::size_t count = 1;
    std::string sizes;
    for (std::int64_t size : shape) {
        count *= static_cast<std::size_t>(size);
        sizes += (sizes.empty() ? "" : ", ") + std::to_string(size);
    }
    std::error_code error;
    const std::uintmax_t bytes = std::filesystem::file_size(path, error);
    if (error) throw std::runtime_error(path.string() + ": cannot be read (" + error.message() + ")");
    if (bytes != count * sizeof(float)) {
        const std::string found = std::to_string(bytes) + " bytes, " + std::to_string(bytes / sizeof(float)) + " numbers";
        throw std::runtime_error(path.string() + ": " + found + ", expected float32 [" + sizes + "]");
    }
    Floats values(count);
    std::ifstream file(path, std::ios::binary);
    if (!file.read(reinterpret_cast<char*>(values.data()), static_cast<std::streamsize>(bytes)))
        throw std::runtime_error(path.string() + ": cannot be read");
    return values;
}

inline void write_floats(const Path& path, const Floats& values) {
    std::ofstream file(path, std::ios::binary);
    file.write(reinterpret_cast<const char*>(values.data()), static_cast<std::streamsize>(values.size() * sizeof(float)));
    if (!file.flush()) throw std::runtime_error(path.string() + ": cannot be written");
}

// How many numbers there are beside NaN, the least and the largest.
struct Range {
    explicit Range(const Floats& values) {
        for (float value : values) {
            known += !std::isnan(value);
            low = std::fmin(low, value);  // the other one, if one of the two is NaN
            high = std::fmax(high, value);
        }
    }
    int known = 0;
    float low = INFINITY, high = -INFINITY;
};

// The largest difference between two arrays, as a share of the range of the second.
inline float difference_of(const Floats& found, const Floats& expected) {
    const Range range(expected);
    float largest = 0;
    for (std::size_t at = 0; at < found.size(); ++at) largest = std::fmax(largest, std::abs(found[at] - expected[at]));
    return largest / (range.high - range.low);
}
