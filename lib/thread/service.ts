/**
 * What a thread that serves somebody on the event loop and its owner say to each other. A feature
 * declares the service as two interfaces of functions: what can be called, and what is reported.
 *
 * @module
 */

/** An interface of functions whose values and results can be cloned. */
export type Functions<Names> = Readonly<Record<keyof Names, (...values: never[]) => unknown>>;

/** Name of a function. */
export type NameOf<Names> = keyof Names & string;

/** What a call gives. */
export type ResultOf<Calls extends Functions<Calls>, Name extends keyof Calls> = Awaited<
  ReturnType<Calls[Name]>
>;

/** A service that reports nothing. */
export type NoReports = Readonly<Record<string, never>>;

/** What both ends of a service share. */
export interface ServiceHandle {
  /** Of the session control. */
  readonly control: SharedArrayBuffer;
  /** Where the thread waits for its owner. */
  readonly gate: SharedArrayBuffer;
}

/** What a thread that serves is started with. */
export interface ServiceJob {
  readonly role: string;
  readonly service: ServiceHandle;
}

/** What its owner has to say of it. */
export type Unstarted<Job extends ServiceJob> = Omit<Job, "service">;

/** From the owner; calls are carried out one after the other. */
export type ServiceCommand =
  | { readonly kind: "call"; readonly name: string; readonly values: readonly unknown[] }
  | { readonly kind: "close" };

/** To the owner. The results are in the order of the calls; failures are in the session control. */
export type ServiceMessage =
  | { readonly kind: "result"; readonly value: unknown }
  | { readonly kind: "failure" }
  | {
      readonly kind: "report";
      readonly name: string;
      readonly values: readonly unknown[];
      /** Whether the thread waits until the owner is done with it. */
      readonly asks: boolean;
    };
