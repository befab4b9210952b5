/**
 * Gives other processes the memory of a snapshot, page by page when they touch it. They speak the
 * protocol that Firecracker has for handlers of page faults: on a Unix socket, one message with their
 * userfaultfd and the regions of their memory.
 *
 * @module
 */
import { checkOptionNames, type OptionNames } from "../option_names.ts";
import { ServiceThread, started } from "../thread/service_thread.ts";
import type { PagedBlocks } from "./attached_ram.ts";
import type {
  FaultClientEnd,
  FaultClientFacts,
  FaultServerCalls,
  FaultServerReports,
  FaultServerWork,
} from "./fault_server_messages.ts";

/** What can be served: a snapshot or a recording. */
export interface PagedImage {
  /** The blocks of these names, or all, and where their pages are. */
  pagedBlocks(names?: readonly string[]): PagedBlocks;
}

/** How faults are served. */
export interface PageFaultOptions {
  /** Path of the socket to listen on; removed at the end. */
  readonly path: string;
  /** Whose memory; stays open until the server is disposed of. */
  readonly snapshot: PagedImage;
  /**
   * Blocks that the offsets of regions count through, one behind the other. Default: all, in the order
   * of the file.
   */
  readonly blocks?: readonly string[] | undefined;
  /** Whether to bring in what nobody has touched yet, as soon as there is time. Default false. */
  readonly fill?: boolean | undefined;
  /** Ends the server as disposing does. */
  readonly signal?: AbortSignal | undefined;
  /** A process has handed its memory over. */
  readonly onConnected?: ((client: FaultClientFacts) => void) | undefined;
  /** A page cannot be had: the process ends by SIGBUS if it touches it. Its connection is closed. */
  readonly onLost?: ((client: FaultClientFacts, reason: string) => void) | undefined;
  /** A process is served no more; `reason` if it should have been. */
  readonly onEnded?:
    | ((client: FaultClientFacts, end: FaultClientEnd, reason: string | undefined) => void)
    | undefined;
}

const PAGE_FAULT_OPTIONS = {
  path: true,
  snapshot: true,
  blocks: true,
  fill: true,
  signal: true,
  onConnected: true,
  onLost: true,
  onEnded: true,
} satisfies OptionNames<PageFaultOptions>;

/** See the module comment. Made by {@linkcode servePageFaults}. */
export class PageFaultServer implements AsyncDisposable {
  /** Path of the socket. */
  readonly path: string;
  readonly #thread: ServiceThread<FaultServerCalls, FaultServerReports>;
  readonly #completing: Int32Array;
  #running: Promise<void> | undefined;

  private constructor(options: PageFaultOptions) {
    const { path, snapshot, fill = false, signal, onConnected, onLost, onEnded } = options;
    this.path = path;
    const paged = snapshot.pagedBlocks(options.blocks);
    const completing = new SharedArrayBuffer(4);
    this.#completing = new Int32Array(completing);
    const file = paged.file.duplicate();
    const job: Omit<FaultServerWork, "service"> & { readonly role: string } = {
      ...paged.source(file),
      task: "listen",
      socket: path,
      blocks: paged.blocks.map(({ idstr, bytes, pageSize, present }) => ({
        idstr,
        bytes,
        pageSize,
        present: present.buffer,
      })),
      fill,
      completing,
    };
    this.#thread = new ServiceThread(
      job,
      { side: "source", signal },
      {
        connected: (client) => onConnected?.(client),
        lost: (client, reason) => onLost?.(client, reason),
        ended: (client, end, reason) => onEnded?.(client, end, reason),
      },
    );
    this.#thread.keep(file);
  }

  /** Listens; see {@linkcode servePageFaults}. */
  static listen(options: PageFaultOptions): Promise<PageFaultServer> {
    checkOptionNames(PAGE_FAULT_OPTIONS, options);
    return started(new PageFaultServer(options), async (server) => {
      await server.#thread.call("listen");
      server.#running = server.#thread.post("run");
    });
  }

  /**
   * Takes no more processes, gives those that are there all their pages, and waits until each has them
   * or has ended.
   *
   * @throws {MultifdError} when the server fails or is cancelled.
   */
  async complete(): Promise<void> {
    Atomics.store(this.#completing, 0, 1);
    await this.ended();
  }

  /**
   * Waits for the end of the server, keeping the process alive meanwhile.
   *
   * @throws {MultifdError} when it fails or is cancelled.
   */
  async ended(): Promise<void> {
    await this.#thread.during(this.#running!);
  }

  /**
   * Ends the server at once. A process that has not got all its pages lives on until it touches one of
   * them; then it ends by SIGBUS. Safe to call twice.
   */
  [Symbol.asyncDispose](): Promise<void> {
    return this.#thread.stop();
  }
}

/**
 * Serves the page faults of other processes from a snapshot or a recording, see
 * {@linkcode PageFaultServer}. Their memory must be what the snapshot's is: regions name places in its
 * blocks, and a page that is not there yet.
 *
 * @throws {SystemError} when the socket cannot be made.
 * @throws {RangeError} for blocks that are not in the snapshot.
 *
 * @example
 * ```ts
 * using snapshot = await openSnapshot("guest.snap");
 * await using server = await servePageFaults({ path: "uffd.sock", snapshot, blocks: ["pc.ram"] });
 * await server.ended(); // until somebody cancels
 * ```
 */
export function servePageFaults(options: PageFaultOptions): Promise<PageFaultServer> {
  return PageFaultServer.listen(options);
}
