/*
 * What GnuTLS itself reaches with records of 16 KiB: random memory over loopback, a sending and a
 * receiving thread a channel, TLS 1.3 with a shared key. Built by tls.ts.
 *
 *     native_tls KEYS CHANNELS MIB     prints GiB/s and CPU seconds a GiB of both sides
 */
#include <netinet/in.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>

typedef struct gnutls *Session;
typedef struct { void *data; unsigned size; } Datum;
int gnutls_init(Session *, unsigned), gnutls_handshake(Session);
int gnutls_priority_set_direct(Session, const char *, const char **);
int gnutls_credentials_set(Session, int, void *);
void gnutls_transport_set_int2(Session, int, int);
ssize_t gnutls_record_send(Session, const void *, size_t), gnutls_record_recv(Session, void *, size_t);
int gnutls_psk_allocate_client_credentials(void **), gnutls_psk_allocate_server_credentials(void **);
int gnutls_psk_set_client_credentials(void *, const char *, const Datum *, int);
int gnutls_psk_set_server_credentials_file(void *, const char *);

enum { SERVER = 1, CLIENT = 2, NO_TICKETS = 1024, PSK = 4, KEY_HEX = 1, RECORD = 16384, CHANNELS_MAX = 64 };
typedef struct { Session session; uint8_t *at; size_t bytes; } Side;

static void die(const char *why) { fprintf(stderr, "native_tls: %s\n", why); exit(1); }
static double seconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}
static void *shake(void *session)
{
    if (gnutls_handshake(session)) die("handshake");
    return NULL;
}
static void *sends(void *argument)
{
    Side *side = argument;
    for (size_t done = 0; done < side->bytes; done += RECORD)
        if (gnutls_record_send(side->session, side->at + done, RECORD) != RECORD) die("send");
    return NULL;
}
static void *receives(void *argument)
{
    Side *side = argument;
    for (size_t done = 0; done < side->bytes;) {
        size_t left = side->bytes - done;
        ssize_t got = gnutls_record_recv(side->session, side->at + done, left < RECORD ? left : RECORD);
        if (got <= 0) die("receive");
        done += got;
    }
    return NULL;
}
static Session session(int role, void *credentials, int fd)
{
    Session made;
    gnutls_init(&made, role | NO_TICKETS);
    gnutls_priority_set_direct(made, "NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+AES-128-GCM:+ECDHE-PSK:+DHE-PSK:+PSK", NULL);
    gnutls_credentials_set(made, PSK, credentials);
    gnutls_transport_set_int2(made, fd, fd);
    return made;
}

int main(int argc, char **argv)
{
    if (argc != 4) die("usage: native_tls KEYS CHANNELS MIB");
    int channels = atoi(argv[2]);
    size_t bytes = atol(argv[3]) << 20;
    if (channels < 1 || channels > CHANNELS_MAX || bytes % ((size_t)channels * RECORD)) die("cannot divide");
    char line[4096], *hex;
    FILE *keys = fopen(argv[1], "r");
    if (!keys || !fgets(line, sizeof line, keys) || !(hex = strchr(line, ':'))) die("cannot read the keys");
    *hex++ = 0;
    hex[strcspn(hex, "\n")] = 0;
    Datum key = { hex, strlen(hex) };
    void *client, *server;
    gnutls_psk_allocate_client_credentials(&client);
    gnutls_psk_allocate_server_credentials(&server);
    if (gnutls_psk_set_client_credentials(client, line, &key, KEY_HEX)) die("client's key");
    if (gnutls_psk_set_server_credentials_file(server, argv[1])) die("server's keys");
    uint8_t *memory[2];
    for (int side = 0; side < 2; side++) {
        memory[side] = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
        if (memory[side] == MAP_FAILED) die("no memory");
    }
    for (size_t at = 0; at < bytes; at += 256) if (getrandom(memory[0] + at, 256, 0) != 256) die("random");
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t length = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    bind(listener, (void *)&address, length);
    listen(listener, channels);
    getsockname(listener, (void *)&address, &length);
    Side sides[2][CHANNELS_MAX];
    pthread_t threads[2][CHANNELS_MAX];
    size_t part = bytes / channels;
    for (int i = 0; i < channels; i++) {
        int to = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(to, (void *)&address, length)) die("connect");
        int from = accept(listener, NULL, NULL);
        sides[0][i] = (Side){ session(CLIENT, client, to), memory[0] + i * part, part };
        sides[1][i] = (Side){ session(SERVER, server, from), memory[1] + i * part, part };
        pthread_create(&threads[0][i], NULL, shake, sides[0][i].session);
        shake(sides[1][i].session);
        pthread_join(threads[0][i], NULL);
    }
    double start = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
    for (int i = 0; i < channels; i++) {
        pthread_create(&threads[0][i], NULL, sends, &sides[0][i]);
        pthread_create(&threads[1][i], NULL, receives, &sides[1][i]);
    }
    for (int i = 0; i < channels; i++) for (int side = 0; side < 2; side++) pthread_join(threads[side][i], NULL);
    double gib = bytes / 1073741824.0;
    cpu = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    printf("%.3f %.3f\n", gib / (seconds(CLOCK_MONOTONIC) - start), cpu / gib);
    if (memcmp(memory[0], memory[1], bytes)) die("memory differs");
    return 0;
}
