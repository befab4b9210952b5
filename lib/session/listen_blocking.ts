/**
 * The way to a receiver for threads that may block.
 *
 * @module
 */
import type { Statistics } from "../engine/statistics.ts";
import { holdBlocks, type RamBlock } from "../memory/ram_block.ts";
import { formatEndpoint } from "../net/endpoint.ts";
import { checkOptionNames } from "../option_names.ts";
import { LISTEN_OPTIONS, type ListenOptions } from "./options.ts";
import { receiverConfig } from "./session_config.ts";
import { ReceiverSession } from "./receiver_session.ts";

/**
 * A listening receiver, made by {@linkcode listenBlocking}: as `Receiver`, but every call returns when
 * it is done. It belongs to the thread that made it.
 */
export class BlockingReceiver implements Disposable {
  /** Where senders connect, with the port that was chosen for port 0. */
  readonly endpoint: string;
  readonly #session: ReceiverSession;

  private constructor(session: ReceiverSession, endpoint: string) {
    this.#session = session;
    this.endpoint = endpoint;
  }

  /** See {@linkcode listenBlocking}. */
  static listen(options: ListenOptions): BlockingReceiver {
    checkOptionNames(LISTEN_OPTIONS, options);
    const session = new ReceiverSession(receiverConfig(options), {
      onWarning: options.onWarning,
      finalize: (blocks, state) => void options.finalize?.(blocks, state),
    });
    session.keep(holdBlocks(options.blocks ?? []));
    try {
      return new BlockingReceiver(session, formatEndpoint(session.listen()));
    } catch (error) {
      session[Symbol.dispose]();
      throw error;
    }
  }

  /** Receives one migration; returns when all of it is in place and the sender has been told. */
  complete(): Statistics {
    return this.#session.complete();
  }

  /** Blocks received into; empty until the sender has announced them. */
  get blocks(): readonly RamBlock[] {
    return this.#session.blocks;
  }

  /** Counters as of now; readable after the end and after a failure. */
  statistics(): Statistics {
    return this.#session.statistics();
  }

  /** Stops everything, joins the channels and closes all descriptors. Safe to call twice. */
  [Symbol.dispose](): void {
    this.#session[Symbol.dispose]();
  }
}

/**
 * Makes a listening receiver for a thread that may block, such as a worker.
 *
 * @param options As for `listen()`; the host must be numeric, `finalize` must not return a promise,
 * and `signal` is not looked at since a blocked thread sees no events.
 * @throws {MultifdError} when listening fails; everything is released then.
 */
export function listenBlocking(options: ListenOptions): BlockingReceiver {
  return BlockingReceiver.listen(options);
}
