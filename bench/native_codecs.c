/*
 * What each compression library reaches by itself: packets of 128 pages in memory to payloads and
 * back, one thread, without a wire. The counterpart of bench/codecs.ts, which builds and runs it.
 *
 *   native_codecs IMAGE PASSES METHOD/ENGINE[/LEVEL]...
 *
 * IMAGE holds whole pages, all of which are coded. One line for each way:
 *
 *   WAY PAYLOAD_BYTES ENCODE_SECONDS DECODE_SECONDS
 *
 * the seconds being CPU time of the best pass, so that other work on the machine counts little. Levels are the library's own. Libraries are opened by
 * soname and the few declarations needed are below, so that nothing but a C compiler is required.
 * Pages are copied before they are compressed wherever they are in the product, since a running guest
 * may change them; what is decoded is compared outside the clock.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096u
#define PACKET (128u * PAGE)
#define PAYLOAD_MAX (1u << 20)
#define MEMBER 65536u
#define STATE (1u << 17) /* room for igzip's structs, which are 82 and 87 KB */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return t.tv_sec + t.tv_nsec * 1e-9;
}

static void die(const char *what)
{
    fprintf(stderr, "native_codecs: %s\n", what);
    exit(1);
}

static void *library(const char *variable, const char *soname)
{
    const char *path = getenv(variable);
    void *handle = dlopen(path ? path : soname, RTLD_NOW);
    if (!handle) die(dlerror());
    return handle;
}

#define LOAD(handle, name) (*(void **)&name = dlsym(handle, #name)) || (die("no " #name), 0)

static uint8_t copy[PACKET], other[PACKET];
static int level;

/* ---- zlib ---- */
typedef struct {
    const uint8_t *next_in; unsigned avail_in; unsigned long total_in;
    uint8_t *next_out; unsigned avail_out; unsigned long total_out;
    const char *msg; void *state, *zalloc, *zfree, *opaque;
    int data_type; unsigned long adler, reserved;
} ZStream;
static int (*deflateInit2_)(ZStream *, int, int, int, int, int, const char *, int);
static int (*deflate)(ZStream *, int), (*deflateReset)(ZStream *), (*deflateEnd)(ZStream *);
static int (*inflateInit2_)(ZStream *, int, const char *, int);
static int (*inflate)(ZStream *, int), (*inflateReset)(ZStream *), (*inflateEnd)(ZStream *);
static unsigned long (*adler32)(unsigned long, const uint8_t *, unsigned);
static unsigned long (*crc32)(unsigned long, const uint8_t *, unsigned);
static ZStream zc, zd;

static void libz_open(int bits)
{
    void *h = library("MULTIFD_LIBZ", "libz.so.1");
    LOAD(h, deflateInit2_); LOAD(h, deflate); LOAD(h, deflateReset); LOAD(h, deflateEnd);
    LOAD(h, inflateInit2_); LOAD(h, inflate); LOAD(h, inflateReset); LOAD(h, inflateEnd);
    LOAD(h, adler32); LOAD(h, crc32);
    memset(&zc, 0, sizeof zc); memset(&zd, 0, sizeof zd);
    if (deflateInit2_(&zc, level, 8, bits, 8, 0, "1.2.3", sizeof zc)) die("deflateInit2");
    if (inflateInit2_(&zd, bits < 0 ? -15 : 15, "1.2.3", sizeof zd)) die("inflateInit2");
}
static void libz_close(void) { deflateEnd(&zc); inflateEnd(&zd); }
static size_t libz_range(const uint8_t *in, size_t bytes, uint8_t *out, size_t room)
{
    deflateReset(&zc);
    zc.next_in = in; zc.avail_in = bytes; zc.next_out = out; zc.avail_out = room;
    return deflate(&zc, 4) == 1 ? room - zc.avail_out : 0;
}
static void libz_unrange(const uint8_t *in, size_t bytes, uint8_t *out, size_t room)
{
    inflateReset(&zd);
    zd.next_in = in; zd.avail_in = bytes; zd.next_out = out; zd.avail_out = room;
    if (inflate(&zd, 4) != 1 || zd.avail_out) die("inflate");
}
static size_t libz_stream(const uint8_t *in, size_t bytes, uint8_t *out)
{
    zc.next_out = out; zc.avail_out = PAYLOAD_MAX;
    memcpy(copy, in, bytes);
    zc.next_in = copy; zc.avail_in = bytes;
    if (deflate(&zc, 2) || zc.avail_in) die("deflate");
    return PAYLOAD_MAX - zc.avail_out;
}
static void libz_unstream(const uint8_t *in, size_t bytes, uint8_t *out, size_t room)
{
    uint8_t spare;
    zd.next_in = in; zd.avail_in = bytes; zd.next_out = out; zd.avail_out = room;
    inflate(&zd, 2);
    if (zd.avail_out) die("inflate");
    zd.next_out = &spare; zd.avail_out = 1;
    inflate(&zd, 2);
}

/* ---- ISA-L ---- */
typedef struct {
    const uint8_t *next_in; uint32_t avail_in, total_in; uint8_t *next_out; uint32_t avail_out, total_out;
    void *hufftables; uint32_t level, level_buf_size; uint8_t *level_buf;
    uint16_t end_of_stream, flush, gzip_flag, hist_bits;
} IsalDeflate;
typedef struct {
    uint8_t *next_out; uint32_t avail_out, total_out; const uint8_t *next_in; uint64_t read_in;
    uint32_t avail_in; int32_t read_in_length;
} IsalInflate;
static void (*isal_deflate_init)(void *), (*isal_deflate_stateless_init)(void *), (*isal_inflate_init)(void *);
static int (*isal_deflate)(void *), (*isal_deflate_stateless)(void *);
static int (*isal_inflate)(void *), (*isal_inflate_stateless)(void *);
static uint32_t (*isal_adler32)(uint32_t, const uint8_t *, uint64_t);
static uint32_t (*crc32_gzip_refl)(uint32_t, const uint8_t *, uint64_t);
static union { IsalDeflate head; uint8_t room[STATE]; } ic;
static union { IsalInflate head; uint8_t room[STATE]; } id;
static uint8_t isal_levels[151552];
static const uint32_t isal_level_bytes[] = { 0, 86016, 135168, 151552 };

static void isal_open(int stream, int bits)
{
    void *h = library("MULTIFD_LIBISAL", "libisal.so.2");
    LOAD(h, isal_deflate_init); LOAD(h, isal_deflate_stateless_init); LOAD(h, isal_inflate_init);
    LOAD(h, isal_deflate); LOAD(h, isal_deflate_stateless); LOAD(h, isal_inflate);
    LOAD(h, isal_inflate_stateless); LOAD(h, isal_adler32); LOAD(h, crc32_gzip_refl);
    if (stream) isal_deflate_init(&ic); else isal_deflate_stateless_init(&ic);
    ic.head.level = level; ic.head.level_buf_size = isal_level_bytes[level];
    ic.head.level_buf = level ? isal_levels : NULL;
    ic.head.end_of_stream = !stream; ic.head.hist_bits = bits;
    isal_inflate_init(&id);
}
static void isal_close(void) {}
static size_t isal_range(const uint8_t *in, size_t bytes, uint8_t *out, size_t room)
{
    ic.head.next_in = in; ic.head.avail_in = bytes; ic.head.total_in = 0;
    ic.head.next_out = out; ic.head.avail_out = room;
    return isal_deflate_stateless(&ic) == 0 ? room - ic.head.avail_out : 0;
}
static void isal_unrange(const uint8_t *in, size_t bytes, uint8_t *out, size_t room)
{
    id.head.next_in = in; id.head.avail_in = bytes; id.head.next_out = out; id.head.avail_out = room;
    if (isal_inflate_stateless(&id) || id.head.avail_out) die("isal_inflate_stateless");
}
static size_t isal_stream(const uint8_t *in, size_t bytes, uint8_t *out)
{
    ic.head.next_out = out; ic.head.avail_out = PAYLOAD_MAX;
    memcpy(copy, in, bytes);
    ic.head.next_in = copy; ic.head.avail_in = bytes; ic.head.flush = 1;
    if (isal_deflate(&ic) || ic.head.avail_in) die("isal_deflate");
    return PAYLOAD_MAX - ic.head.avail_out;
}
static void isal_unstream(const uint8_t *in, size_t bytes, uint8_t *out, size_t room)
{
    uint8_t spare;
    id.head.next_in = in; id.head.avail_in = bytes; id.head.next_out = out; id.head.avail_out = room;
    isal_inflate(&id);
    if (id.head.avail_out) die("isal_inflate");
    id.head.next_out = &spare; id.head.avail_out = 1;
    isal_inflate(&id);
}

/* ---- libdeflate ---- */
static void *(*libdeflate_alloc_compressor)(int), *(*libdeflate_alloc_decompressor)(void);
static size_t (*libdeflate_deflate_compress)(void *, const void *, size_t, void *, size_t);
static int (*libdeflate_deflate_decompress)(void *, const void *, size_t, void *, size_t, size_t *);
static void (*libdeflate_free_compressor)(void *), (*libdeflate_free_decompressor)(void *);
static uint32_t (*libdeflate_adler32)(uint32_t, const void *, size_t);
static uint32_t (*libdeflate_crc32)(uint32_t, const void *, size_t);
static void *lc, *ld;

static void libdeflate_open(void)
{
    void *h = library("MULTIFD_LIBDEFLATE", "libdeflate.so.0");
    LOAD(h, libdeflate_alloc_compressor); LOAD(h, libdeflate_alloc_decompressor);
    LOAD(h, libdeflate_deflate_compress); LOAD(h, libdeflate_deflate_decompress);
    LOAD(h, libdeflate_free_compressor); LOAD(h, libdeflate_free_decompressor);
    LOAD(h, libdeflate_adler32); LOAD(h, libdeflate_crc32);
    lc = libdeflate_alloc_compressor(level); ld = libdeflate_alloc_decompressor();
}
static void libdeflate_close(void) { libdeflate_free_compressor(lc); libdeflate_free_decompressor(ld); }
static size_t libdeflate_range(const uint8_t *in, size_t bytes, uint8_t *out, size_t room)
{
    return libdeflate_deflate_compress(lc, in, bytes, out, room);
}
static void libdeflate_unrange(const uint8_t *in, size_t bytes, uint8_t *out, size_t room)
{
    if (libdeflate_deflate_decompress(ld, in, bytes, out, room, NULL)) die("libdeflate");
}

/* ---- QPL, software path ---- */
typedef struct {
    const uint8_t *next_in; uint32_t avail_in, total_in; uint8_t *next_out; uint32_t avail_out, total_out;
    uint32_t op, flags, crc, xorsum, last_bit; uint32_t level;
} QplJob;
static int (*qpl_get_job_size)(int, uint32_t *), (*qpl_init_job)(int, void *);
static int (*qpl_execute_job)(void *), (*qpl_fini_job)(void *);
static QplJob *job;

static void libqpl_open(void)
{
    uint32_t bytes = 0;
    void *h = library("MULTIFD_LIBQPL", "libqpl.so.1");
    LOAD(h, qpl_get_job_size); LOAD(h, qpl_init_job); LOAD(h, qpl_execute_job); LOAD(h, qpl_fini_job);
    if (qpl_get_job_size(2, &bytes)) die("qpl_get_job_size");
    job = aligned_alloc(64, (bytes + 63) & ~63u);
    memset(job, 0, bytes);
    if (qpl_init_job(2, job)) die("qpl_init_job");
}
static void libqpl_close(void) { qpl_fini_job(job); free(job); }
static int libqpl_run(int op, int flags, const uint8_t *in, size_t bytes, uint8_t *out, size_t room)
{
    job->op = op; job->flags = 3 | flags; job->level = 1;
    job->next_in = in; job->avail_in = bytes; job->next_out = out; job->avail_out = room;
    return qpl_execute_job(job);
}
static size_t libqpl_range(const uint8_t *in, size_t bytes, uint8_t *out, size_t room)
{
    int flags = 0x4000 | (level > 1 ? 0x2000 : 0);
    return libqpl_run(1, flags, in, bytes, out, room) ? 0 : job->total_out;
}
static void libqpl_unrange(const uint8_t *in, size_t bytes, uint8_t *out, size_t room)
{
    if (libqpl_run(0, 0, in, bytes, out, room) || job->total_out != room) die("qpl_op_decompress");
}

/* ---- zstd ---- */
typedef struct { void *at; size_t size, pos; } ZstdBuffer;
static void *(*ZSTD_createCCtx)(void), *(*ZSTD_createDCtx)(void);
static size_t (*ZSTD_CCtx_setParameter)(void *, int, int);
static size_t (*ZSTD_compressStream2)(void *, ZstdBuffer *, ZstdBuffer *, int);
static size_t (*ZSTD_decompressStream)(void *, ZstdBuffer *, ZstdBuffer *);
static size_t (*ZSTD_freeCCtx)(void *), (*ZSTD_freeDCtx)(void *);
static void *sc, *sd;

static void zstd_open(void)
{
    void *h = library("MULTIFD_LIBZSTD", "libzstd.so.1");
    LOAD(h, ZSTD_createCCtx); LOAD(h, ZSTD_createDCtx); LOAD(h, ZSTD_CCtx_setParameter);
    LOAD(h, ZSTD_compressStream2); LOAD(h, ZSTD_decompressStream);
    LOAD(h, ZSTD_freeCCtx); LOAD(h, ZSTD_freeDCtx);
    sc = ZSTD_createCCtx(); sd = ZSTD_createDCtx();
    ZSTD_CCtx_setParameter(sc, 100, level);
}
static void zstd_close(void) { ZSTD_freeCCtx(sc); ZSTD_freeDCtx(sd); }
static size_t zstd_stream(const uint8_t *in, size_t bytes, uint8_t *out)
{
    ZstdBuffer from = { (void *)in, bytes, 0 }, to = { out, PAYLOAD_MAX, 0 };
    if (ZSTD_compressStream2(sc, &to, &from, 1)) die("ZSTD_compressStream2");
    return to.pos;
}
static void zstd_unstream(const uint8_t *in, size_t bytes, uint8_t *out, size_t room)
{
    ZstdBuffer from = { (void *)in, bytes, 0 }, to = { out, room, 0 };
    while (to.pos < room) if ((ssize_t)ZSTD_decompressStream(sd, &to, &from) < 0) die("zstd");
    uint8_t spare;
    ZstdBuffer rest = { &spare, 1, 0 };
    ZSTD_decompressStream(sd, &rest, &from);
}

/* ---- ways ---- */
typedef size_t Range(const uint8_t *, size_t, uint8_t *, size_t);
typedef void Unrange(const uint8_t *, size_t, uint8_t *, size_t);
typedef size_t Stream(const uint8_t *, size_t, uint8_t *);
static Range *range; static Unrange *unrange; static Stream *stream; static Unrange *unstream;
static void (*close_engine)(void);
static int sums; /* 1 adler32, 2 crc32 */
static char engine;

static uint32_t sum(const uint8_t *at, size_t bytes)
{
    if (engine == 'i') return sums == 1 ? isal_adler32(1, at, bytes) : crc32_gzip_refl(0, at, bytes);
    if (engine == 'd') return sums == 1 ? libdeflate_adler32(1, at, bytes) : libdeflate_crc32(0, at, bytes);
    return sums == 1 ? adler32(1, at, bytes) : crc32(0, at, bytes);
}

/* Units of `unit` bytes, each behind its length; raw when not smaller. */
static size_t encode_units(const uint8_t *in, size_t bytes, uint8_t *out, size_t unit)
{
    size_t end = bytes / PAGE * 4, around = sums == 1 ? 6 : sums == 2 ? 32 : 0;
    uint32_t *lengths = (uint32_t *)out;
    memset(out, 0, end);
    for (size_t at = 0, n = 0; at < bytes; at += unit, n++) {
        size_t piece = bytes - at < unit ? bytes - at : unit;
        memcpy(copy, in + at, piece);
        size_t length = range(copy, piece, out + end, piece - 1 - around);
        if (!length) { memcpy(out + end, in + at, piece); length = piece; }
        else if (sums) { uint32_t check = sum(copy, piece); memcpy(out + end + length, &check, 4); }
        lengths[n] = length;
        end += length + (sums ? around : 0);
    }
    return end;
}
static void decode_units(const uint8_t *in, uint8_t *out, size_t bytes, size_t unit)
{
    const uint32_t *lengths = (const uint32_t *)in;
    size_t from = bytes / PAGE * 4, around = sums == 1 ? 6 : sums == 2 ? 32 : 0;
    for (size_t at = 0, n = 0; at < bytes; at += unit, n++) {
        size_t piece = bytes - at < unit ? bytes - at : unit;
        if (lengths[n] == piece) memcpy(out + at, in + from, piece);
        else {
            unrange(in + from, lengths[n], out + at, piece);
            uint32_t check;
            memcpy(&check, in + from + lengths[n], 4);
            if (sums && sum(out + at, piece) != check) die("checksum");
        }
        from += lengths[n] + (sums ? around : 0);
    }
}

static void open_way(const char *method, const char *name)
{
    int is_stream = !strcmp(method, "zlib") || !strcmp(method, "zstd");
    int bits = strcmp(method, "qatzip") ? 12 : 15;
    sums = !strcmp(method, "uadk") ? 1 : !strcmp(method, "qatzip") ? 2 : 0;
    stream = NULL;
    if (!strcmp(name, "libz")) {
        libz_open(is_stream ? 15 : -bits); engine = 'z'; close_engine = libz_close;
        range = libz_range; unrange = libz_unrange;
        if (is_stream) { stream = libz_stream; unstream = libz_unstream; }
    } else if (!strcmp(name, "isal")) {
        isal_open(is_stream, is_stream ? 0 : bits); engine = 'i'; close_engine = isal_close;
        range = isal_range; unrange = isal_unrange;
        if (is_stream) { stream = isal_stream; unstream = isal_unstream; }
    } else if (!strcmp(name, "libdeflate")) {
        libdeflate_open(); engine = 'd'; close_engine = libdeflate_close;
        range = libdeflate_range; unrange = libdeflate_unrange;
    } else if (!strcmp(name, "libqpl")) {
        libqpl_open(); engine = 'q'; close_engine = libqpl_close;
        range = libqpl_range; unrange = libqpl_unrange;
    } else if (!strcmp(name, "libzstd")) {
        zstd_open(); close_engine = zstd_close; stream = zstd_stream; unstream = zstd_unstream;
    } else die("unknown engine");
}

int main(int argc, char **argv)
{
    if (argc < 4) die("usage: native_codecs IMAGE PASSES METHOD/ENGINE[/LEVEL]...");
    int fd = open(argv[1], O_RDONLY);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) || st.st_size == 0 || st.st_size % PAGE) die("cannot read the image");
    size_t bytes = st.st_size, packets = (bytes + PACKET - 1) / PACKET;
    uint8_t *image = malloc(bytes), *payloads = malloc(packets * (size_t)PAYLOAD_MAX);
    size_t *lengths = calloc(packets, sizeof *lengths);
    for (size_t at = 0; at < bytes;) {
        ssize_t got = pread(fd, image + at, bytes - at, at);
        if (got <= 0) die("cannot read the image");
        at += got;
    }
    memset(payloads, 1, packets * (size_t)PAYLOAD_MAX); /* no page fault on the clock */
    for (int argument = 3; argument < argc; argument++) {
        char way[64], *method = way, *name, *level_text;
        snprintf(way, sizeof way, "%s", argv[argument]);
        if (!(name = strchr(way, '/'))) die("a way is METHOD/ENGINE[/LEVEL]");
        *name++ = 0;
        level = 1;
        if ((level_text = strchr(name, '/'))) { *level_text++ = 0; level = atoi(level_text); }
        size_t unit = strcmp(method, "qatzip") ? PAGE : MEMBER, total = 0;
        double best_encode = 1e9, best_decode = 1e9;
        for (int pass = 0; pass < atoi(argv[2]); pass++) {
            double encode = 0, decode = 0;
            open_way(method, name);
            total = 0;
            for (size_t p = 0; p < packets; p++) {
                size_t size = p + 1 < packets ? PACKET : bytes - p * (size_t)PACKET;
                const uint8_t *in = image + p * (size_t)PACKET;
                uint8_t *out = payloads + p * (size_t)PAYLOAD_MAX;
                double start = now();
                lengths[p] = stream ? stream(in, size, out) : encode_units(in, size, out, unit);
                encode += now() - start;
                total += lengths[p];
            }
            for (size_t p = 0; p < packets; p++) {
                size_t size = p + 1 < packets ? PACKET : bytes - p * (size_t)PACKET;
                const uint8_t *in = payloads + p * (size_t)PAYLOAD_MAX;
                double start = now();
                if (stream) unstream(in, lengths[p], other, size);
                else decode_units(in, other, size, unit);
                decode += now() - start;
                if (memcmp(other, image + p * (size_t)PACKET, size)) die("pages differ");
            }
            close_engine();
            if (encode < best_encode) best_encode = encode;
            if (decode < best_decode) best_decode = decode;
        }
        printf("%s %zu %.6f %.6f\n", argv[argument], total, best_encode, best_decode);
        fflush(stdout);
    }
    return 0;
}
