/* AES-GCM (NIST SP 800-38D) with the processor's own instructions, for packets: a key is one block of memory, and nothing
   else is touched. Through OpenSSL a packet costs a dozen functions and objects, and between two packets of one subscriber
   all of them have left the cache. Neither time nor memory access depends on a secret.

   tests/lkactor/srtp/test_srtp.py holds it to OpenSSL and to libsrtp. */

#include "octets.h"

#if defined(__x86_64__)

#include <immintrin.h>

#define GCM 1
#define GCM_CODE static __attribute__((target("avx,aes,pclmul")))
#define GCM_INLINE __attribute__((always_inline)) GCM_CODE inline
#define WIDE 8                      /* blocks that are worked on side by side */
#define TAG 16

typedef struct {
    int rounds;
    __m128i powers[WIDE];           /* of the hash key, times x; the highest first */
    __m128i round_keys[15];
} gcm_key;

static int gcm_available(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx") && __builtin_cpu_supports("aes") && __builtin_cpu_supports("pclmul");
}

/* -- AES (FIPS 197) ----------------------------------------------------------------------------------------------- */

GCM_CODE uint32_t substitute(uint32_t word, int rotate) {
    __m128i words = _mm_aeskeygenassist_si128(_mm_set_epi32(0, 0, (int)word, 0), 0);
    return (uint32_t)(rotate ? _mm_extract_epi32(words, 1) : _mm_cvtsi128_si32(words));
}

/* Section 5.2; `size` 16 or 32. */
GCM_CODE void expand_key(gcm_key *key, const uint8_t *secret, int size) {
    uint32_t words[60], constant = 1;
    int count = size / 4;
    memcpy(words, secret, (size_t)size);
    key->rounds = count + 6;
    for (int i = count; i < 4 * (key->rounds + 1); i++) {
        uint32_t word = words[i - 1];
        if (i % count == 0) {
            word = substitute(word, 1) ^ constant;
            constant = (constant << 1 ^ (constant & 0x80 ? 0x1B : 0)) & 0xFF;
        } else if (count == 8 && i % count == 4) {
            word = substitute(word, 0);
        }
        words[i] = words[i - count] ^ word;
    }
    memcpy(key->round_keys, words, 16 * (size_t)(key->rounds + 1));
}

GCM_CODE __m128i encrypt_block(const gcm_key *key, __m128i block) {
    block = _mm_xor_si128(block, key->round_keys[0]);
    for (int round = 1; round < key->rounds; round++) block = _mm_aesenc_si128(block, key->round_keys[round]);
    return _mm_aesenclast_si128(block, key->round_keys[key->rounds]);
}

GCM_CODE __m128i reversed(__m128i block) {
    return _mm_shuffle_epi8(block, _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
}

GCM_CODE __m128i load(const uint8_t *at) { return _mm_loadu_si128((const __m128i *)at); }

GCM_CODE void store(uint8_t *at, __m128i block) { _mm_storeu_si128((__m128i *)at, block); }

GCM_CODE __m128i next_counter(__m128i counter, int step) { return _mm_add_epi32(counter, _mm_set_epi32(0, 0, 0, step)); }

/* WIDE blocks of key stream. `counter`: the first one's, reversed, so that its number is the lowest word. */
GCM_INLINE void key_stream(const gcm_key *key, __m128i counter, __m128i *blocks) {
#pragma GCC unroll 8
    for (int i = 0; i < WIDE; i++)
        blocks[i] = _mm_xor_si128(reversed(next_counter(counter, i)), key->round_keys[0]);
    for (int round = 1; round < key->rounds; round++)
#pragma GCC unroll 8
        for (int i = 0; i < WIDE; i++) blocks[i] = _mm_aesenc_si128(blocks[i], key->round_keys[round]);
#pragma GCC unroll 8
    for (int i = 0; i < WIDE; i++) blocks[i] = _mm_aesenclast_si128(blocks[i], key->round_keys[key->rounds]);
}

/* WIDE blocks in place. */
GCM_INLINE void encrypt_blocks(const gcm_key *key, __m128i counter, uint8_t *data) {
    __m128i blocks[WIDE];
    key_stream(key, counter, blocks);
#pragma GCC unroll 8
    for (int i = 0; i < WIDE; i++) store(data + 16 * i, _mm_xor_si128(blocks[i], load(data + 16 * i)));
}

/* In place; the same both ways. Whole blocks: up to 15 octets behind the data are changed, too. */
GCM_CODE void counter_mode(const gcm_key *key, __m128i counter, uint8_t *data, uint32_t size) {
    __m128i blocks[WIDE];
    for (; size >= 16 * WIDE; data += 16 * WIDE, size -= 16 * WIDE) {
        encrypt_blocks(key, counter, data);
        counter = next_counter(counter, WIDE);
    }
    if (size == 0) return;
    key_stream(key, counter, blocks);
    for (uint32_t i = 0; 16 * i < size; i++) store(data + 16 * i, _mm_xor_si128(blocks[i], load(data + 16 * i)));
}

/* -- GHASH -------------------------------------------------------------------------------------------------------- */

/* The three parts of products that are summed up before they are reduced, once for all of them. */
typedef struct {
    __m128i low, middle, high;
} product;

GCM_CODE product add_product(product sum, __m128i a, __m128i b) {
    sum.low = _mm_xor_si128(sum.low, _mm_clmulepi64_si128(a, b, 0x00));
    sum.high = _mm_xor_si128(sum.high, _mm_clmulepi64_si128(a, b, 0x11));
    sum.middle = _mm_xor_si128(sum.middle, _mm_xor_si128(_mm_clmulepi64_si128(a, b, 0x01), _mm_clmulepi64_si128(a, b, 0x10)));
    return sum;
}

/* Modulo x^128 + x^7 + x^2 + x + 1, in the reversed order of bits that GHASH has: 64 bits are folded up at a time. What
   comes out is divided by x^127, which the powers of the key, times x, make good. */
GCM_CODE __m128i reduce(product sum) {
    const __m128i polynomial = _mm_set_epi64x(0, (long long)0xC200000000000000ull);
    sum.middle = _mm_xor_si128(sum.middle, _mm_shuffle_epi32(sum.low, 0x4E));
    sum.middle = _mm_xor_si128(sum.middle, _mm_clmulepi64_si128(polynomial, sum.low, 0x00));
    sum.high = _mm_xor_si128(sum.high, _mm_shuffle_epi32(sum.middle, 0x4E));
    return _mm_xor_si128(sum.high, _mm_clmulepi64_si128(polynomial, sum.middle, 0x00));
}

GCM_CODE void prepare_powers(gcm_key *key) {
    __m128i hash = reversed(encrypt_block(key, _mm_setzero_si128()));
    uint64_t low = (uint64_t)_mm_cvtsi128_si64(hash), high = (uint64_t)_mm_extract_epi64(hash, 1);
    uint64_t carry = 0 - (high >> 63);
    high = (high << 1 | low >> 63) ^ (carry & 0xC200000000000000ull);
    low = low << 1 ^ (carry & 1);
    hash = key->powers[WIDE - 1] = _mm_set_epi64x((long long)high, (long long)low);
    for (int i = WIDE - 2; i >= 0; i--) key->powers[i] = reduce(add_product((product){0}, key->powers[i + 1], hash));
}

/* `count` blocks, WIDE at most. */
GCM_INLINE __m128i hash_blocks(const gcm_key *key, __m128i hash, const uint8_t *data, int count) {
    product sum = {0};
#pragma GCC unroll 8
    for (int i = 0; i < count; i++) {
        __m128i block = reversed(load(data + 16 * i));
        if (i == 0) block = _mm_xor_si128(block, hash);
        sum = add_product(sum, block, key->powers[WIDE - count + i]);
    }
    return reduce(sum);
}

/* `data` is filled up with zeros to whole blocks. */
GCM_CODE __m128i hash_data(const gcm_key *key, __m128i hash, const uint8_t *data, uint32_t size) {
    uint8_t rest[16] = {0};
    for (; size >= 16 * WIDE; data += 16 * WIDE, size -= 16 * WIDE) hash = hash_blocks(key, hash, data, WIDE);
    if (size >= 16) hash = hash_blocks(key, hash, data, (int)size / 16);
    if (size % 16 == 0) return hash;
    memcpy(rest, data + size / 16 * 16, size % 16);
    return hash_blocks(key, hash, rest, 1);
}

/* -- GCM ---------------------------------------------------------------------------------------------------------- */

GCM_CODE void gcm_init(gcm_key *key, const uint8_t *secret, int size) {
    expand_key(key, secret, size);
    prepare_powers(key);
}

/* The block that the tag is encrypted with, reversed; `iv` of 12 octets. */
GCM_CODE __m128i first_counter(const uint8_t *iv) {
    uint8_t block[16] = {[15] = 1};
    memcpy(block, iv, 12);
    return reversed(load(block));
}

/* Of what has been hashed, sizes in octets. */
GCM_CODE __m128i tag_of(const gcm_key *key, __m128i counter, __m128i hash, uint32_t extra_size, uint32_t size) {
    __m128i sizes = _mm_set_epi64x((long long)extra_size * 8, (long long)size * 8);
    hash = reduce(add_product((product){0}, _mm_xor_si128(hash, sizes), key->powers[WIDE - 1]));
    return _mm_xor_si128(reversed(hash), encrypt_block(key, reversed(counter)));
}

/* Encrypts `data` in place and writes TAG octets behind it; `extra` is authenticated only. The two ciphers take turns: the
   processor does one's next blocks while it waits for the other's. */
GCM_CODE void gcm_seal(const gcm_key *key, const uint8_t *iv, const uint8_t *extra, uint32_t extra_size, uint8_t *data,
                       uint32_t size) {
    __m128i first = first_counter(iv), counter = next_counter(first, 1);
    __m128i hash = hash_data(key, _mm_setzero_si128(), extra, extra_size);
    uint32_t left = size;
    for (; left >= 16 * WIDE; data += 16 * WIDE, left -= 16 * WIDE) {
        encrypt_blocks(key, counter, data);
        hash = hash_blocks(key, hash, data, WIDE);
        counter = next_counter(counter, WIDE);
    }
    counter_mode(key, counter, data, left);
    store(data + left, tag_of(key, first, hash_data(key, hash, data, left), extra_size, size));
}

/* 0: `data` is decrypted; -1: the TAG octets behind it are wrong, and nothing has changed. */
GCM_CODE int gcm_open(const gcm_key *key, const uint8_t *iv, const uint8_t *extra, uint32_t extra_size, uint8_t *data,
                      uint32_t size) {
    __m128i first = first_counter(iv);
    __m128i hash = hash_data(key, hash_data(key, _mm_setzero_si128(), extra, extra_size), data, size);
    __m128i wanted = tag_of(key, first, hash, extra_size, size);
    if (_mm_movemask_epi8(_mm_cmpeq_epi8(wanted, load(data + size))) != 0xFFFF) return -1;
    counter_mode(key, next_counter(first, 1), data, size);
    return 0;
}

#endif
