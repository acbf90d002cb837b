/* The 64-byte record of SKRD/1 (docs/wire.md, section 4). C99, no library needed.
 *
 *     skrd_record record;
 *     if (skrd_read(bytes, length, &record)) ...   // checked: size, magic, version, CRC-32
 */
#ifndef SKRD_RECORD_H
#define SKRD_RECORD_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define SKRD_RECORD_BYTES 64

enum { SKRD_NONE = 0, SKRD_OK = 1, SKRD_NG = 2, SKRD_REVIEW = 3, SKRD_ERR = 4 };
enum { SKRD_LATE = 1, SKRD_SIMULATED = 2, SKRD_NOT_EVALUATED = 4, SKRD_ALARM = 8, SKRD_TOGGLE = 16 };

/* Naturally aligned: on a little-endian machine this is the record itself, byte for byte. */
typedef struct {
    uint32_t magic;
    uint16_t version;
    uint8_t verdict;
    uint8_t flags;
    uint64_t seq;
    uint32_t boot_lo;
    uint32_t trigger_seq;
    int64_t t_cap_ns;
    uint32_t total_us;
    float score;
    float threshold;
    uint16_t region_id;
    uint16_t n_regions;
    uint32_t ok_count;
    uint32_t ng_count;
    uint32_t err_count;
    uint32_t crc32;
} skrd_record;

/* A compiler that lays it out differently fails here. */
typedef char skrd_size_is_64[sizeof(skrd_record) == SKRD_RECORD_BYTES ? 1 : -1];
typedef char skrd_crc_is_last[offsetof(skrd_record, crc32) == 60 ? 1 : -1];

static uint32_t skrd_crc32(const unsigned char *bytes, size_t length) {
    uint32_t crc = 0xFFFFFFFFu;
    for (size_t i = 0; i < length; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (0xEDB88320u & (0u - (crc & 1u)));
    }
    return ~crc;
}

/* 1 and the record when `bytes` are one, else 0. Little-endian machines only. */
static int skrd_read(const void *bytes, size_t length, skrd_record *record) {
    if (length != SKRD_RECORD_BYTES || memcmp(bytes, "SKR1", 4) != 0) return 0;
    memcpy(record, bytes, SKRD_RECORD_BYTES);
    if (record->crc32 != skrd_crc32((const unsigned char *)bytes, 60)) return 0;
    return record->version == 1 && record->verdict <= SKRD_ERR;
}

static const char *skrd_verdict_name(const skrd_record *record) {
    static const char *const names[] = {"none", "ok", "ng", "review", "err"};
    return names[record->verdict];
}

#endif
