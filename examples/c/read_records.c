/* Print a recording: `skrd4ad listen --record DIR`, then `read_records DIR/records.bin`.
 *
 *     cc -std=c99 -Wall -o read_records read_records.c
 */
#include <inttypes.h>
#include <stdio.h>

#include "skrd_record.h"

int main(int argc, char **argv) {
    unsigned char bytes[SKRD_RECORD_BYTES];
    skrd_record r;
    FILE *file = argc == 2 ? fopen(argv[1], "rb") : NULL;
    if (!file) {
        fprintf(stderr, "usage: read_records records.bin\n");
        return 2;
    }
    size_t got;
    while ((got = fread(bytes, 1, sizeof bytes, file)) > 0) {
        if (!skrd_read(bytes, got, &r)) {
            fprintf(stderr, "a damaged record at byte %ld\n", ftell(file) - (long)got);
            fclose(file);
            return 1;
        }
        printf("%" PRIu64 " %s %u %" PRIu32 " %" PRIu32 " %" PRId64 " %" PRIu32
               " %.9g %.9g %u %u %" PRIu32 " %" PRIu32 " %" PRIu32 "\n",
               r.seq, skrd_verdict_name(&r), r.flags, r.boot_lo, r.trigger_seq, r.t_cap_ns,
               r.total_us, (double)r.score, (double)r.threshold, r.region_id, r.n_regions,
               r.ok_count, r.ng_count, r.err_count);
    }
    fclose(file);
    return 0;
}
