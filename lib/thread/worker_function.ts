/**
 * A function that runs on a worker thread. Functions cannot be cloned, so what travels is where to
 * import it from and the data it is called with.
 *
 * @module
 */
import { spendThread } from "./thread_port.ts";

/** See the module comment; the data must be cloneable (SharedArrayBuffers are shared, not copied). */
export interface WorkerFunction {
  /**
   * Absolute URL of the module, for example `new URL("./device.ts", import.meta.url).href`. The file
   * must be there when the program runs, beside a bundle or a compiled binary too.
   */
  readonly module: string;
  /** Name of the exported function. Default `default`. */
  readonly name?: string | undefined;
  /** Second argument of the function. */
  readonly data?: unknown;
}

/**
 * Imports the module and calls the function; returns when it has ended.
 *
 * @throws {TypeError} when the module has no such function, and whatever the function throws.
 */
export async function callWorkerFunction(
  { module, name = "default", data }: WorkerFunction,
  context: unknown,
): Promise<void> {
  spendThread(); // what a module of somebody else's keeps, nobody can clear
  const exports = (await import(module)) as Record<string, unknown>;
  const found = exports[name];
  if (typeof found !== "function") {
    throw new TypeError(
      `Cannot run ${name} of ${module}: it is ${typeof found}, must be a function`,
    );
  }
  await (found as (context: unknown, data: unknown) => unknown)(context, data);
}

/** @throws {TypeError} unless `value` can name a function of a module. */
export function checkWorkerFunction(what: string, value: WorkerFunction): void {
  if (!URL.canParse(value.module)) {
    throw new TypeError(
      `Cannot use ${what}: its module is ${JSON.stringify(value.module)}, must be an absolute URL`,
    );
  }
}
