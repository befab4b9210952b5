/**
 * Restores a guest that runs before its memory has arrived.
 *
 * @module
 */
import { fromErrorRecord, LimitError, StreamError } from "../errors.ts";
import { checkOptionNames, type OptionNames } from "../option_names.ts";
import { openGuest, type GuestFile } from "../pages/guest_file.ts";
import { withAddress } from "../session/address.ts";
import {
  LIMIT_OPTIONS,
  LINK_OPTIONS,
  type LimitOptions,
  type LinkOptions,
} from "../session/options.ts";
import { sessionConfig } from "../session/session_config.ts";
import { bandwidthOf, type BandwidthLimit } from "../sync/bandwidth_limit.ts";
import type { Unstarted } from "../thread/service.ts";
import { ServiceThread, started } from "../thread/service_thread.ts";
import type {
  InstantCalls,
  InstantConfig,
  InstantJob,
  InstantReports,
  ServingEnd,
} from "./instant_messages.ts";
import { InstantStatistics, type InstantProgress } from "./instant_statistics.ts";
import { readPageOrder, writePageOrder } from "./page_order.ts";

/** Options of {@linkcode restore} for a guest that runs before its memory has arrived. */
export interface InstantRestoreOptions extends Pick<LinkOptions, "endpoint" | "tls">, LimitOptions {
  /** The guest runs at once, and its memory follows it. */
  readonly instant: true;
  /**
   * The guest: a recording or a snapshot, plain or compressed, by its name or opened by
   * {@linkcode openGuest}. One that is opened may serve several guests at once, each of its frames is
   * decompressed once for all of them.
   */
  readonly input: string | GuestFile;
  /** The guest's uuid. Default: that of the file. */
  readonly uuid?: string | undefined;
  /** The destination has capability postcopy-preempt: pages that are asked for have a connection of their own. */
  readonly preempt?: boolean | undefined;
  /** Bytes of the pages that a block's memory at the destination is made of, if they are huge, by its id. */
  readonly hostPages?: Readonly<Record<string, number>> | undefined;
  /** Limit in bytes per second on what was not asked for; 0 (default) for none. */
  readonly maxBandwidth?: number | BandwidthLimit | undefined;
  /** File with an order of pages, which go first. */
  readonly order?: string | undefined;
  /**
   * File to write the order of requests to, in front of it what `order` has. Pages that nobody asks for
   * follow when the guest has asked for none for a second.
   */
  readonly learn?: string | undefined;
  /** The migration was cut, and the destination waits for it to go on. Default false. */
  readonly resume?: boolean | undefined;
  /** Is told what a user may want to know, such as a disk that fails and is tried again. */
  readonly onNotice?: ((notice: string) => void) | undefined;
}

const INSTANT_OPTIONS = {
  instant: true,
  endpoint: LINK_OPTIONS.endpoint,
  tls: LINK_OPTIONS.tls,
  ...LIMIT_OPTIONS,
  input: true,
  uuid: true,
  preempt: true,
  hostPages: true,
  maxBandwidth: true,
  order: true,
  learn: true,
  resume: true,
  onNotice: true,
} satisfies OptionNames<InstantRestoreOptions>;

/** A guest whose memory follows it, made by {@linkcode restore} with `instant`. */
export class InstantRestorer implements AsyncDisposable {
  readonly #options: InstantRestoreOptions;
  readonly #config: InstantConfig;
  readonly #own: GuestFile | undefined;
  readonly #statistics = new InstantStatistics();
  readonly #thread: ServiceThread<InstantCalls, InstantReports>;
  readonly #running = Promise.withResolvers<undefined>();
  #serving: Promise<ServingEnd> | undefined;

  private constructor(
    options: InstantRestoreOptions,
    config: InstantConfig,
    own: GuestFile | undefined,
  ) {
    this.#options = options;
    this.#config = config;
    this.#own = own;
    this.#running.promise.catch(() => {}); // nobody may be waiting
    const statistics = this.#statistics.buffer;
    const job = { role: "instant", config, statistics } satisfies Unstarted<InstantJob>;
    this.#thread = new ServiceThread(
      job,
      { side: "source", signal: options.signal },
      {
        running: () => this.#running.resolve(undefined),
        notice: (text) => options.onNotice?.(text),
      },
    );
  }

  /** See {@linkcode restore}. */
  static async connect(options: InstantRestoreOptions): Promise<InstantRestorer> {
    checkOptionNames(INSTANT_OPTIONS, options);
    const { input } = options;
    const own = typeof input === "string" ? await openGuest(input) : undefined;
    try {
      const config = await withAddress(instantConfig(options, own ?? (input as GuestFile)));
      const restorer = new InstantRestorer(options, config, own);
      return await started(restorer, async (made) => {
        const thread = made.#thread;
        if (options.resume ?? false) {
          made.#serving = thread.post("recover", config.endpoint, config.tls);
        } else {
          await thread.call("connect");
          made.#serving = thread.post("serve");
        }
      });
    } catch (error) {
      own?.[Symbol.dispose]();
      throw error;
    }
  }

  /** Machine type of the guest. */
  get machine(): string {
    return this.#config.state.machine;
  }

  /** How far it is, at any time, after a failure too. */
  progress(): InstantProgress {
    return this.#statistics.progress();
  }

  /** Waits until the guest is about to run at the destination. */
  async running(): Promise<void> {
    const ended = await this.#thread.during(Promise.race([this.#running.promise, this.#serving!]));
    if (ended?.cut !== undefined) throw fromErrorRecord(ended.cut);
  }

  /**
   * Waits until all memory is in place at the destination. After an error of the connection the
   * destination keeps the guest, waiting for pages: `recover()` goes on.
   */
  async complete(): Promise<InstantProgress> {
    const end = await this.#thread.during(this.#serving!);
    const { learn } = this.#options;
    if (learn !== undefined && end.order !== undefined) {
      const { blocks } = this.#config.pages;
      await writePageOrder(learn, { blocks, runs: end.order });
    }
    if (end.cut !== undefined) throw fromErrorRecord(end.cut);
    return this.progress();
  }

  /**
   * Takes the migration up again after `complete()` has failed with the connection: at `endpoint`, where
   * the destination was told to wait (`migrate-recover`). Then `complete()` again.
   *
   * @throws {RangeError} when nothing was cut.
   */
  async recover(endpoint: string): Promise<void> {
    const { cut } = await this.#thread.during(this.#serving!);
    if (cut === undefined) throw new RangeError("Cannot recover: the restore is complete");
    const config = instantConfig({ ...this.#options, endpoint }, this.#config);
    const { endpoint: at, tls } = await withAddress(config);
    this.#serving = this.#thread.post("recover", at, tls);
  }

  /** Ends the session; a destination that is not done waits for `recover()` by another one. Safe to call twice. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#thread.stop();
    this.#own?.[Symbol.dispose]();
  }
}

/** What of a guest's file is looked at here. */
type GuestParts = Pick<GuestFile, "pages" | "state"> & Partial<Pick<GuestFile, "missing">>;

function instantConfig(options: InstantRestoreOptions, file: GuestParts): InstantConfig {
  const { pages, state, missing = [] } = file;
  const { path } = pages;
  if (missing.length > 0) {
    throw new StreamError(
      "ERR_MULTIFD_STREAM_BLOCKS",
      `Cannot restore ${path}: shared memory is not in it (${missing.map(({ idstr }) => idstr).join(", ")})`,
    );
  }
  const [first] = pages.blocks;
  if (first === undefined || pages.blocks.some(({ pageSize }) => pageSize !== first.pageSize)) {
    throw new LimitError(
      "ERR_MULTIFD_LIMIT_BLOCKS",
      `Cannot restore ${path}: it must have RAM blocks, with pages of one size`,
    );
  }
  const { endpoint, tls, timeouts, uuid, hostPages = {}, order } = options;
  for (const idstr of Object.keys(hostPages)) {
    if (pages.blocks.some((block) => block.idstr === idstr)) continue;
    throw new RangeError(`Cannot use huge pages for RAM block ${idstr}: there is none in ${path}`);
  }
  return {
    ...sessionConfig({ endpoint, tls, timeouts, uuid }, "encode", first.pageSize),
    pages,
    state,
    ...(uuid === undefined ? { uuid: state.uuid } : {}),
    hostPages: pages.blocks.map(({ idstr, bytes, pageSize }) => {
      const size = hostPages[idstr] ?? pageSize;
      if (size % pageSize === 0 && bytes % size === 0 && Math.log2(size) % 1 === 0) return size;
      throw new RangeError(
        `Cannot use pages of ${size} bytes for RAM block ${idstr}: it has ${bytes} bytes in pages of ${pageSize}`,
      );
    }),
    preempt: options.preempt ?? false,
    bandwidth: bandwidthOf(options.maxBandwidth),
    order: order === undefined ? new Uint32Array(0) : readPageOrder(order, pages.blocks).runs,
    learn: options.learn !== undefined,
  };
}
