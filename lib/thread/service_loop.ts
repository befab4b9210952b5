/**
 * The thread's end of a service: reports to the owner, and the loop that carries out its calls.
 *
 * @module
 */
import type { ErrorContext } from "../errors.ts";
import { SessionControl } from "../sync/session_control.ts";
import { OwnerGate } from "./owner_gate.ts";
import type {
  Functions,
  NameOf,
  NoReports,
  ServiceCommand,
  ServiceHandle,
  ServiceMessage,
} from "./service.ts";
import { threadPort, type ThreadPort } from "./thread_port.ts";

/** A step of the owner's that a thread waits for. */
interface OwnerStep {
  /** What cannot be done without it, for messages. */
  readonly action: string;
  readonly limitMs: number;
}

/** How calls are served. */
interface Serving<Calls> {
  /** Completes the errors of calls. */
  readonly context: ErrorContext;
  /** The call after which the thread ends. Default: when its owner lets it go. */
  readonly last?: NameOf<Calls> | undefined;
  /** Arrays of a result that are handed over and not copied, for which the owner would stand still. */
  readonly large?: ((result: unknown) => readonly Uint8Array[]) | undefined;
}

/** See the module comment. */
export class ServiceLink<Reports extends Functions<Reports> = NoReports> {
  readonly control: SessionControl;
  readonly #gate: OwnerGate;
  readonly #port: ThreadPort = threadPort();

  constructor({ control, gate }: ServiceHandle) {
    this.control = new SessionControl(control);
    this.#gate = new OwnerGate(gate, this.control);
  }

  /** Tells the owner. */
  report<Name extends NameOf<Reports>>(name: Name, ...values: Parameters<Reports[Name]>): void {
    this.#post({ kind: "report", name, values, asks: false });
  }

  /**
   * Tells the owner, and blocks until it is done with that.
   *
   * @throws What it throws, {TimeoutError} after the limit.
   */
  ask<Name extends NameOf<Reports>>(
    { action, limitMs }: OwnerStep,
    name: Name,
    ...values: Parameters<Reports[Name]>
  ): void {
    this.#post({ kind: "report", name, values, asks: true });
    this.#gate.wait(action, limitMs);
  }

  /** Carries out calls, one after the other; what one throws ends the session. */
  async serve<Calls extends Functions<Calls>>(
    calls: Calls,
    { context, last, large = () => [] }: Serving<Calls>,
  ): Promise<void> {
    const { promise: end, resolve } = Promise.withResolvers<void>();
    this.#port.onMessage((message) => {
      const command = message as ServiceCommand;
      if (command.kind === "close") return resolve();
      try {
        const value = calls[command.name as keyof Calls](...(command.values as never[]));
        this.#post({ kind: "result", value }, large(value));
      } catch (error) {
        this.control.fail(error, context);
        this.#post({ kind: "failure" });
      }
      if (command.name === last) resolve();
    });
    await end;
  }

  #post(message: ServiceMessage, large: readonly Uint8Array[] = []): void {
    this.#port.postMessage(
      message,
      large.map(({ buffer }) => buffer as ArrayBuffer),
    );
  }
}
