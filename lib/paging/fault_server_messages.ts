/**
 * What the thread that serves the faults of other processes is started with, and what it and its owner
 * say.
 *
 * @module
 */
import type { ServiceJob } from "../thread/service.ts";
import type { ServedBlock } from "./region_message.ts";

/** What such a thread is started with; each kind of snapshot adds where its pages are. */
export interface FaultServerWork extends ServiceJob {
  readonly task: "listen";
  /** Path of the socket. */
  readonly socket: string;
  readonly blocks: readonly ServedBlock[];
  /** Whether to bring in what nobody has touched yet. */
  readonly fill: boolean;
  /** One word: 1 when no more processes are taken, and those that are there get all pages. */
  readonly completing: SharedArrayBuffer;
}

/** A process whose faults are served. */
export interface FaultClientFacts {
  /** Counts the processes that connect, from 1. */
  readonly number: number;
  /** The process as the kernel knows it; 0 when it cannot be told. */
  readonly pid: number;
  /** Bytes of its memory. */
  readonly bytes: number;
  /** Faults that were served. */
  readonly faults: number;
  /** Bytes that came in because they were touched, with what is around them. */
  readonly faultedBytes: number;
  /** Bytes that it has given back, and that are zero from then on. */
  readonly removedBytes: number;
}

/** How a process came to need nothing any more. */
export type FaultClientEnd =
  /** All its pages are there. */
  | "complete"
  /** It has ended. */
  | "gone"
  /** It was not served at all, or not to the end; the error tells why. */
  | "failed"
  /** The server was disposed of: what it has not got is a mistake to touch. */
  | "stopped";

/** What can be called. */
export interface FaultServerCalls {
  /** Listens. */
  listen(): void;
  /** Serves until stopped, or until all processes have all pages. */
  run(): void;
}

/** What is told. */
export interface FaultServerReports {
  connected(facts: FaultClientFacts): void;
  /** A page could not be had; the process that touches it ends by SIGBUS. */
  lost(facts: FaultClientFacts, reason: string): void;
  ended(facts: FaultClientFacts, end: FaultClientEnd, reason: string | undefined): void;
}
