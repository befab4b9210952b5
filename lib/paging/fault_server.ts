/**
 * Serves the faults of other processes, as many as connect, on one thread.
 *
 * @module
 */
import { Arena } from "../../ffi/arena.ts";
import { close, poll, unwrap } from "../../ffi/libc.ts";
import { PollEvent } from "../../ffi/linux.ts";
import { describeError, TimeoutError } from "../errors.ts";
import {
  FAULT_CLIENT_HELLO_MS,
  FAULT_CLIENTS_MAX,
  FAULT_SPIN_MS,
  WAIT_TICK_MS,
} from "../limits.ts";
import { listenAt } from "../net/endpoint.ts";
import type { Listener } from "../net/endpoint_kind.ts";
import type { Stoppable } from "../sync/semaphore.ts";
import { ServiceLink } from "../thread/service_loop.ts";
import { FaultClient } from "./fault_client.ts";
import type {
  FaultClientEnd,
  FaultServerCalls,
  FaultServerReports,
  FaultServerWork,
} from "./fault_server_messages.ts";
import type { PageReader } from "./page_reader.ts";

const BACKLOG = 128;
const POLLFD_BYTES = 8;

/** Serves until its owner stops it. */
export async function runFaultServer(
  job: FaultServerWork,
  openReader: (session: Stoppable) => PageReader,
): Promise<void> {
  const link = new ServiceLink<FaultServerReports>(job.service);
  using server = new FaultServer(job, link);
  using reader = openReader(link.control);
  await link.serve<FaultServerCalls>(
    { listen: () => server.listen(), run: () => server.run(reader) },
    { context: { peer: job.socket, phase: undefined } },
  );
}

class FaultServer implements Disposable {
  readonly #job: FaultServerWork;
  readonly #link: ServiceLink<FaultServerReports>;
  readonly #completing: Int32Array;
  readonly #pollfds = new Arena((1 + 2 * FAULT_CLIENTS_MAX) * POLLFD_BYTES);
  #listener: Listener | undefined;
  #clients: FaultClient[] = [];
  #last = 0;
  #lookedMs = 0;

  constructor(job: FaultServerWork, link: ServiceLink<FaultServerReports>) {
    this.#job = job;
    this.#link = link;
    this.#completing = new Int32Array(job.completing);
  }

  listen(): void {
    this.#listener = listenAt({ kind: "unix", path: this.#job.socket }, BACKLOG);
  }

  run(reader: PageReader): void {
    let last = 0;
    while (!this.#link.control.stopping) {
      if (this.#isCompleting) this.#stopListening();
      if (this.#isCompleting && this.#clients.length === 0) return;
      const filled = this.#fill();
      const isAwake = filled || performance.now() - last < FAULT_SPIN_MS;
      if (this.#look(reader, isAwake ? 0 : WAIT_TICK_MS)) last = performance.now();
      this.#dropLate();
    }
  }

  [Symbol.dispose](): void {
    this.#stopListening();
    for (const client of this.#clients) {
      client.abandon();
      this.#tell(client, "stopped");
    }
    this.#clients = [];
  }

  get #isCompleting(): boolean {
    return Atomics.load(this.#completing, 0) !== 0;
  }

  #stopListening(): void {
    if (this.#listener === undefined) return;
    this.#listener.removeName();
    close(this.#listener.fd);
    this.#listener = undefined;
  }

  /** Waits at most `waitMs` and does what there is to do; whether faults were served. */
  #look(reader: PageReader, waitMs: number): boolean {
    const clients = this.#clients;
    this.#setPoll(0, this.#listener?.fd ?? -1);
    for (const [index, { userfaultfd, socket }] of clients.entries()) {
      this.#setPoll(1 + 2 * index, userfaultfd);
      this.#setPoll(2 + 2 * index, socket);
    }
    if (poll(this.#pollfds.address, 1 + 2 * clients.length, waitMs) <= 0) return false;
    let served = false;
    for (const [index, client] of clients.entries()) {
      try {
        const ready = this.#readiness(1 + 2 * index);
        if (ready !== 0) {
          const events = unwrap("Cannot read page faults", client.serve(ready));
          if (events > 0) served = true;
        }
        if (this.#readiness(2 + 2 * index) !== 0) this.#receive(client, reader);
      } catch (error) {
        this.#refuse(client, error);
      }
    }
    if (this.#readiness(0) !== 0) this.#accept();
    return served;
  }

  #receive(client: FaultClient, reader: PageReader): void {
    const wasReady = client.isReady;
    client.receive(reader);
    if (!wasReady && client.isReady) this.#link.report("connected", client.facts());
  }

  #accept(): void {
    const accepted = this.#listener?.accept();
    if (accepted === undefined) return;
    const number = ++this.#last;
    const client = new FaultClient(number, accepted.fd, this.#job.blocks, (one, error) => {
      one.failure ??= error;
      this.#link.report("lost", one.facts(), describeError(error));
      one.closeSocket(); // so that whoever watches it knows
    });
    this.#clients.push(client);
    if (this.#clients.length <= FAULT_CLIENTS_MAX) return;
    this.#refuse(client, new Error(`Cannot serve more than ${FAULT_CLIENTS_MAX} processes`));
  }

  /** Brings in a piece for each process that is to get all; whether there was one. */
  #fill(): boolean {
    let filled = false;
    for (const client of this.#clients) {
      if (!client.isReady || client.failure !== undefined) continue;
      if (!this.#job.fill && !this.#isCompleting) continue;
      try {
        if (client.fill()) filled = true;
        else if (this.#isCompleting && client.release()) {
          this.#end(client, "complete", () => client.close());
        }
      } catch (error) {
        if (client.isGone()) this.#end(client, "gone", () => client.close());
        else {
          client.failure = error;
          this.#link.report("lost", client.facts(), describeError(error));
        }
      }
    }
    return filled;
  }

  /** Ends those that are gone, those that say nothing, and those that cannot get what they should. */
  #dropLate(): void {
    const now = performance.now();
    if (now - this.#lookedMs < WAIT_TICK_MS) return;
    this.#lookedMs = now;
    for (const client of this.#clients) {
      if (client.isReady && client.isGone()) this.#end(client, "gone", () => client.close());
      else if (!client.isReady && now - client.connectedMs > FAULT_CLIENT_HELLO_MS) {
        const limit = `${FAULT_CLIENT_HELLO_MS} ms`;
        const message = `Cannot serve page faults: no message came within ${limit}`;
        this.#refuse(client, new TimeoutError("ERR_MULTIFD_TIMEOUT", message));
      } else if (this.#isCompleting && client.failure !== undefined) {
        this.#end(client, "failed", () => client.abandon());
      }
    }
  }

  #refuse(client: FaultClient, error: unknown): void {
    client.failure ??= error;
    this.#end(client, "failed", () => (client.isReady ? client.abandon() : client.close()));
  }

  #end(client: FaultClient, end: FaultClientEnd, letGo: () => void): void {
    letGo();
    this.#clients = this.#clients.filter((one) => one !== client);
    this.#tell(client, end);
  }

  #tell(client: FaultClient, end: FaultClientEnd): void {
    const { failure } = client;
    const reason = failure === undefined ? undefined : describeError(failure);
    this.#link.report("ended", client.facts(), end, reason);
  }

  #setPoll(index: number, fd: number): void {
    const at = index * POLLFD_BYTES;
    this.#pollfds.view.setInt32(at, fd, true);
    this.#pollfds.view.setInt16(at + 4, PollEvent.IN, true);
    this.#pollfds.view.setInt16(at + 6, 0, true);
  }

  #readiness(index: number): number {
    return this.#pollfds.view.getInt16(index * POLLFD_BYTES + 6, true);
  }
}
