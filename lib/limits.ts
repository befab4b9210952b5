/**
 * Every bound of the library in one place, with the reason for its value. What a format fixes is marked
 * with its section of the wire format.
 *
 * @module
 */

/** Payload budget of one packet in bytes (section 1); a packet never carries more page bytes. */
export const PACKET_PAYLOAD_BYTES = 524_288;

/**
 * Packets one hand-off from a client to a channel is worth at most. Waking a thread costs about as
 * much as scanning and sending a packet: jobs of one packet spent a tenth of the sender's time on
 * hand-offs, and from 8 to 64 packets a transfer over 4 channels of two cores still gains 6 %.
 */
export const PACKETS_PER_JOB_MAX = 64;

/** The same at least, while there are pages; 4 MiB are little to wait for at a sync point. */
export const PACKETS_PER_JOB_MIN = 8;

/**
 * How much a job may be for where there is a limit on bandwidth, in milliseconds at that rate, but at
 * least a packet: whoever shares the limit, and a change of it, need not wait for long ones.
 */
export const PACED_JOB_MS = 50;

/** Most pages of one packet: those of 4 KiB, the smallest pages there are. */
export const PACKET_PAGES_MAX = 128;

/** Channels of one migration (section 1); the handshake has one byte for the id. */
export const CHANNELS_MAX = 255;

/** Page sizes in bytes a target may have. */
export const PAGE_SIZES: readonly number[] = [4096, 8192, 16_384, 65_536];

/** The one of a target that is not told another, and of a stream that names none. */
export const PAGE_SIZE_DEFAULT = 4096;

/** Bytes of a RAM block's id string; one more is the terminating NUL (section 1). */
export const BLOCK_ID_BYTES_MAX = 255;

/** Compressed payload a QEMU receiver has room for (section 7.2), hence the most we send or accept. */
export const PAYLOAD_BYTES_MAX = 1_048_576;

/**
 * Largest SharedArrayBuffer, a fixed limit of JavaScriptCore. Blocks above it are held in several
 * segments of `SEGMENT_BYTES`.
 */
export const BUFFER_BYTES_MAX = 4_294_967_296;

/**
 * Segment of an allocated block. A power of two keeps every page in one segment; 1 GiB keeps the
 * largest contiguous reservation modest while a terabyte is still only a thousand segments.
 */
export const SEGMENT_BYTES = 1_073_741_824;

/** Blocks of one migration; QEMU guests have a few dozen, the table is allocated up front. */
export const BLOCKS_MAX = 256;

/** Segments of all blocks together, 4 TiB at `SEGMENT_BYTES`. */
export const SEGMENTS_MAX = 4096;

/**
 * Most bytes all blocks of a mapped-ram file may have together, what `SEGMENTS_MAX` allocated
 * segments hold. It bounds the bitmaps that opening a file takes into memory, to 128 MiB.
 */
export const MAPPED_RAM_BYTES_MAX = SEGMENTS_MAX * SEGMENT_BYTES;

/** Largest piece of a file one channel reads or writes in one call, as in QEMU. */
export const FILE_JOB_BYTES = 1_048_576;

/** Most such pieces that a channel takes in a row where the kernel reads ahead. */
export const FILE_STRETCH_WINDOWS = 128;

/** Largest block: page numbers are 32-bit everywhere in the engine. */
export const BLOCK_PAGES_MAX = 0xffff_ffff;

/** Memory a receiver allocates for announced blocks unless told otherwise. */
export const RECEIVE_BYTES_DEFAULT = 64 * 1_073_741_824;

/**
 * What a receiver holds beside RAM, windows and queues unless told otherwise: device state and
 * sections in front of the RAM, each with room to grow, or two states of a checkpoint.
 */
export const HELD_BESIDE_RAM_BYTES = 1_073_741_824;

/**
 * What a relay may hold of a main stream: a section in front of the RAM, twice while it grows, and the
 * end of what has gone through.
 */
export const RELAY_HELD_BYTES = 64 * 1_048_576;

/**
 * Largest window of a zstd frame that is decoded, 32 MiB: what level 20 has where the length is not
 * known, the highest that QEMU and this library know. Level 22 would take 128 MiB a channel.
 */
export const ZSTD_WINDOW_BITS_MAX = 25;

/** Smallest limit on windows: that of the fast levels, up to 2. */
export const ZSTD_WINDOW_BITS_MIN = 20;

/** Longest machine name in a configuration section; QEMU's are below 64. */
export const MACHINE_NAME_BYTES_MAX = 255;

/** Capabilities named in a configuration section; QEMU's source names those it checks, a few. */
export const CAPABILITIES_MAX = 64;

/** Longest VM description; QEMU's are below 1 MiB for large machines. */
export const DESCRIPTION_BYTES_MAX = 16 * 1_048_576;

/**
 * How long a pass over a file goes on with as many threads as there are processors before it starts
 * the others: a thread costs about 30 ms of CPU, in which one writes 60 MiB to the page cache.
 */
export const LATE_CHANNELS_MS = 250;

/**
 * Content of one frame of a compressed snapshot: what a reader has to decompress for a single page.
 * Larger ones compress a little better.
 */
export const SEEKABLE_FRAME_BYTES = 262_144;

/** Largest frame that is read; other tools write up to a few MiB. */
export const SEEKABLE_FRAME_BYTES_MAX = 16 * 1_048_576;

/** Frames of one compressed file, the format's own limit. */
export const SEEKABLE_FRAMES_MAX = 0x800_0000;

/**
 * Decompressed frames that all servers of single pages of one file keep together, unless told
 * otherwise, and how many there are at least, so that threads do not wait for one another's.
 */
export const FRAME_CACHE_BYTES = 64 * 1_048_576;
export const FRAME_CACHE_SLOTS_MIN = 16;

/** How long a thread waits for another one to decompress a frame, which takes milliseconds. */
export const FRAME_WAIT_MS = 10_000;

/** Pages that are sent at once when memory follows its guest; what a request may have to wait for. */
export const POSTCOPY_STAGE_BYTES = 1_048_576;

/** Pages of a list while the guest asks for others, and when it has not for a while. */
export const POSTCOPY_PAGES_MIN = 64;
export const POSTCOPY_PAGES_MAX = 128;

/**
 * Lists on their way that the destination has not placed yet: more do not make it faster, and requested
 * pages queue behind them.
 */
export const POSTCOPY_LISTS_MAX = 4;

/** Pages behind one that was asked for that go before all others. */
export const NEAR_PAGES = 64;

/** How long a disk that fails is asked again while the guest waits. */
export const PAGE_RETRY_MS = 10_000;

/** How long a guest must have asked for nothing, while its order is learned, before all else follows. */
export const LEARN_QUIET_MS = 1000;

/** Runs of a recorded order of pages: 12 MiB, of a guest that asks for each page by itself 4 GiB. */
export const ORDER_RUNS_MAX = 1_048_576;

/** Length of a file with such an order, runs and names of blocks. */
export const ORDER_FILE_BYTES_MAX = ORDER_RUNS_MAX * 12 + 65_536 * 2;

/**
 * Device state kept from a stream, all sections together. A PC's is 100 KiB; a graphics adapter or a
 * virtio device with large queues adds MiB. Accelerators send theirs over the channels instead.
 */
export const DEVICE_STATE_BYTES_MAX = 256 * 1_048_576;

/** One section in front of the RAM, for example virtio-mem's bitmap: a bit for each 2 MiB. */
export const EARLY_SECTION_BYTES_MAX = 16 * 1_048_576;

/** All sections in front of the RAM together, as far as a file is opened. */
export const EARLY_STATE_BYTES_MAX = 2 * EARLY_SECTION_BYTES_MAX;

/**
 * How long a stream must be silent before its end is believed, when only its look tells it: behind a
 * complete VM description, and without one. A source that waits for a confirmation sends nothing.
 */
export const STREAM_END_QUIET_MS = { described: 100, undescribed: 3000 } as const;

/**
 * Values and keys in a VM description. A CPU has some hundred and a whole PC 12,000; parsed, so many
 * take about 100 MiB, whatever the text is.
 */
export const DESCRIPTION_VALUES_MAX = 1_048_576;

/** Lists and objects inside one another in a VM description, three for each level of structures. */
export const DESCRIPTION_DEPTH_MAX = 128;

/**
 * Fields of all devices in an analysis, arrays taken apart; a CPU has less than a thousand, a large
 * buffer is one. Devices behind that are listed without their fields.
 */
export const ANALYZED_FIELDS_MAX = 1_000_000;

/** Structures inside structures in a device's state; QEMU's go six deep. */
export const DEVICE_FIELDS_DEPTH_MAX = 32;

/**
 * Sections listed in an analysis. A migration writes one for each 50 ms at least, so this is more
 * than half a day's, and the shortest ones would make a list many times as large as the file.
 */
export const ANALYZED_SECTIONS_MAX = 1_000_000;

/** Metadata of a recording: some hundred bytes for each of at most `BLOCKS_MAX` blocks. */
export const METADATA_BYTES_MAX = 1_048_576;

/** Digest section, one entry per block. */
export const DIGEST_BYTES_MAX = 64;

/** Longest return-path message QEMU itself accepts. */
export const RETURN_MESSAGE_BYTES_MAX = 512;

/**
 * What a failure that is told to the other side may have, so that it fits such a message: UTF-8 bytes
 * of its message, and characters of its code and phase.
 */
export const FAILURE_MESSAGE_BYTES_MAX = 400;
export const FAILURE_CODE_CHARACTERS_MAX = 64;
export const FAILURE_PHASE_CHARACTERS_MAX = 16;

/**
 * How long a failure of the connection waits for the reason from the other side, and whoever has told
 * one waits for the other side to take it. A peer that lives does either at once.
 */
export const PEER_REASON_MS = 1000;

/**
 * Longest uninterrupted wait of any thread. Every wait looks at the stop word at least this often,
 * so a cancel takes effect within this time even where nobody could be woken.
 */
export const WAIT_TICK_MS = 100;

/** How long a source may take to end its connection once it is told that its guest is in place. */
export const SOURCE_END_MS = 1000;

/** Looks at a semaphore before sleeping; a sleep and a wake cost about 35 µs, this many loads 1 µs. */
export const SPIN_LOADS = 400;

/**
 * Device state of one checkpoint. It is copied while both sides stand still, so a state that comes
 * near this bound belongs into a RAM block, where only what changed is sent.
 */
export const CHECKPOINT_STATE_BYTES_MAX = 256 * 1_048_576;

/**
 * How long the threads of a page crew may work on one task; far more than comparing all memory of a
 * large machine takes, so it only ends a wait for a thread that is gone.
 */
export const PAGE_TASK_LIMIT_MS = 600_000;

/** How long joining a stopped worker may take before it is terminated. */
export const JOIN_LIMIT_MS = 5000;

/** How long a worker may take to load before the session is given up. */
export const WORKER_START_LIMIT_MS = 30_000;

/**
 * What may still be on a channel's way when the main connection has told of a sync point: more than
 * two sockets hold, also where they are tuned for long ways.
 */
export const SYNC_LAG_BYTES = 268_435_456;

/**
 * How long connections stay open before a source is refused. QEMU 10.0 may never get over losing a
 * channel while it still connects the others, or while it synchronises all of them right afterwards:
 * its migration fails, and no further one can start.
 */
export const REFUSAL_DELAY_MS = 1000;

/** Default time limits in milliseconds; all can be set per session. */
export const TIMEOUTS_DEFAULT = {
  /** One connection attempt, and from the first to the last connection of a migration. */
  connectMs: 10_000,
  /** A listening receiver until the first connection. */
  acceptMs: 600_000,
  /** Between two packets or two pieces of the main stream, while no other connection moves a byte. */
  idleMs: 300_000,
  /** Without a single byte while a packet is half way through, and with channels that take nothing. */
  stallMs: 30_000,
} as const;

/**
 * Channels that rehearse the page path before they connect (see `rehearsal/warm_up.ts`). It takes each
 * 30 to 50 ms of a processor: little beside the 256 MiB that one of 4 channels carries of a 1 GiB
 * guest, but with a hundred channels the set-up would take longer than the transfer.
 */
export const REHEARSED_CHANNELS_MAX = 16;

/**
 * Connections that may be waiting to be identified at once, two migrations of the most channels. A
 * sender speaks at once, so the one that has been silent for longest makes room for the next.
 */
export const PENDING_CONNECTIONS_MAX = 512;

/** How long a receiver may take to refuse a certificate that it asked for: a few round trips. */
export const TLS_VERDICT_MS = 100;

/** Bytes of a file of shared keys for TLS: a thousand users' of the longest keys. */
export const TLS_KEYS_BYTES_MAX = 1_048_576;

/** Records of TLS that one key protects: 256 GiB in full ones, what AES-GCM is good for. */
export const TLS_RECORDS_PER_KEY_MAX = 16_777_216;

/** Channels that have introduced themselves and wait for the rest of their migration: of two of them. */
export const CANDIDATE_CONNECTIONS_MAX = 2 * CHANNELS_MAX;

/**
 * How long the channels may take to have read everything once the main stream is complete, in
 * milliseconds. What is left then was not under way but is too much.
 */
export const CHANNELS_QUIET_MS = 1000;

/**
 * How long the connections of one sender must stand alone before it is received, when another one has
 * been there: its channels end within milliseconds of its main connection.
 */
export const SENDERS_SETTLE_MS = 1000;

/** One read or write of an image file: long enough that the disk matters and not the call. */
export const IMAGE_CHUNK_BYTES = 8 * 1_048_576;

/** Reads or writes of an image file under way at once; more help neither disks nor page cache. */
export const IMAGE_CHUNKS_MAX = 4;
/** Threads of one pool; beyond a thousand, thread stacks alone cost gigabytes. */
export const POOL_THREADS_MAX = 1024;

/**
 * Devices of one migration; a guest has a few dozen at most. Their table is allocated up front.
 */
export const DEVICES_MAX = 256;

/** The buffer every slot has for device state: what VFIO reads at once, and never exceeds. */
export const DEVICE_BUFFER_BYTES = 1_048_576;

/**
 * Slots for producers of device state, hence the number of buffers being filled at once. Buffers
 * that nobody fills are never touched and cost nothing.
 */
export const DEVICE_SLOTS = 64;

/** Longest payload of a device-state packet that is accepted; the field has 32 bits. */
export const DEVICE_PAYLOAD_BYTES_MAX = 16 * 1_048_576;

/**
 * Bytes of one device that may wait for its load thread, unless told otherwise. More than channels
 * can reorder by orders of magnitude, and still a bound for a consumer that stands still.
 */
export const DEVICE_QUEUED_BYTES_DEFAULT = 1_073_741_824;

/** The most that can be set: twice as much, and tables, must fit one SharedArrayBuffer. */
export const DEVICE_QUEUED_BYTES_MAX = 2 * 1_000_000_000;

/** Buffers of one device that may wait for its load thread, unless told otherwise. */
export const DEVICE_QUEUED_BUFFERS_DEFAULT = 65_536;

/** The most that can be set; each takes 16 bytes of a table and at least 512 bytes of the heap. */
export const DEVICE_QUEUED_BUFFERS_MAX = 262_144;

/**
 * Bytes around a page that is touched which are brought in behind it: 16 faults become one, and the
 * page itself does not wait for its neighbours.
 */
export const FAULT_AROUND_BYTES = 65_536;

/** How long a thread that serves faults looks for the next one before it sleeps; waking costs as much. */
export const FAULT_SPIN_MS = 0.2;

/** Pieces of `FILE_JOB_BYTES` that a thread takes at once when it fills memory in the background. */
export const FILL_STRETCH_WINDOWS = 16;

/** How often a page that somebody waits for is read before it is given up, and the pause between. */
export const FAULT_READS_MAX = 3;
export const FAULT_READ_PAUSE_MS = 50;

/** How long a thread that serves faults may take to be ready. */
export const FAULT_SERVER_START_MS = 10_000;

/** Bytes of the message with which a process hands its memory over, a hundred for each region. */
export const REGION_MESSAGE_BYTES_MAX = 65_536;

/** Regions of one such memory; virtual machine monitors have one or two. */
export const REGIONS_MAX = 256;

/** Largest pages of such memory, which are placed whole: 2 MiB, what virtual machine monitors use. */
export const REGION_PAGE_BYTES_MAX = 2 * 1_048_576;

/** Processes whose faults one server serves at once; each costs up to three bits a page. */
export const FAULT_CLIENTS_MAX = 64;

/** How long a process may take to hand its memory over once it has connected. */
export const FAULT_CLIENT_HELLO_MS = 10_000;

/** How long events of a process are read that has all its pages, for whoever was about to cause one. */
export const FAULT_LINGER_MS = 200;
