// Tells a damaged export from a whole one by the SHA-256 (FIPS 180-4) of its files.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>

constexpr std::uint32_t ROUNDS[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01,
    0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc,
    0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147,
    0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08,
    0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208,
    0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

inline std::uint32_t rotated(std::uint32_t word, int bits) { return word >> bits | word << (32 - bits); }

// Takes a block of 64 bytes into the state.
inline void digest(const unsigned char* block, std::uint32_t (&state)[8]) {
    std::uint32_t words[64];
    for (int at = 0; at < 16; ++at) {
        words[at] = 0;
        for (int byte = 0; byte < 4; ++byte) words[at] = words[at] << 8 | block[4 * at + byte];
    }
    for (int at = 16; at < 64; ++at) {
        const std::uint32_t early = words[at - 15], late = words[at - 2];
        words[at] = words[at - 16] + (rotated(early, 7) ^ rotated(early, 18) ^ early >> 3) + words[at - 7] +
                    (rotated(late, 17) ^ rotated(late, 19) ^ late >> 10);
    }
    auto [a, b, c, d, e, f, g, h] = state;
    for (int at = 0; at < 64; ++at) {
        const std::uint32_t input = h + ROUNDS[at] + words[at];
        const std::uint32_t first = input + (rotated(e, 6) ^ rotated(e, 11) ^ rotated(e, 25)) + ((e & f) ^ (~e & g));
        const std::uint32_t second = (rotated(a, 2) ^ rotated(a, 13) ^ rotated(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
        h = g, g = f, f = e, e = d + first, d = c, c = b, b = a, a = first + second;
    }
    const std::uint32_t changes[8] = {a, b, c, d, e, f, g, h};
    for (int at = 0; at < 8; ++at) state[at] += changes[at];
}

// The digest of a file in hexadecimal. A file that cannot be read is an error.
inline std::string sha256(const std::filesystem::path& path) {
    std::ifstream file(path, std::ios::binary);
    std::uint32_t state[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    unsigned char block[64] = {};
    std::uint64_t bytes = 0;
    while (file.read(reinterpret_cast<char*>(block), 64)) digest(block, state), bytes += 64;
    if (!file.eof()) throw std::runtime_error(path.string() + ": cannot be read; copy the folder again");
    std::size_t used = static_cast<std::size_t>(file.gcount());
    const std::uint64_t bits = 8 * (bytes + used);
    block[used++] = 0x80;
    if (used > 56) {
        std::fill(block + used, block + 64, 0);
        digest(block, state);
        used = 0;
    }
    std::fill(block + used, block + 56, 0);
    for (int byte = 0; byte < 8; ++byte) block[56 + byte] = static_cast<unsigned char>(bits >> (56 - 8 * byte));
    digest(block, state);
    std::string digits;
    for (std::uint32_t word : state)
        for (int shift = 28; shift >= 0; shift -= 4) digits += "0123456789abcdef"[word >> shift & 15];
    return digits;
}

// The card, card.json, has the names and checksums of the other files. To see whether it has one takes no parser.
inline void check_files(const std::filesystem::path& folder) {
    std::ifstream file(folder / "card.json");
    const std::string card(std::istreambuf_iterator<char>(file), {});
    const auto has = [&](const std::string& text) { return card.find('"' + text + '"') != std::string::npos; };
    if (!has("map.onnx")) throw std::runtime_error(folder.string() + ": is not an exported model (by card.json)");
    for (const std::string name : {"map.onnx", "weights.bin", "test-image.bin", "test-map.bin"})
        if ((name != "weights.bin" || has(name)) && !has(sha256(folder / name)))  // weights may stand in the model
            throw std::runtime_error((folder / name).string() + ": is damaged, or card.json is; copy the folder again");
}
