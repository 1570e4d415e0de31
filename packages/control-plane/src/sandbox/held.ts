/**
 * `source`, with `use` disposed of when it ends or is left: also if nobody ever began to read it, when a generator's own
 * `finally` would not run.
 */
export function held<T>(use: Disposable, source: AsyncGenerator<T, void>): AsyncGenerator<T, void> {
  const settle = async (step: Promise<IteratorResult<T, void>>): Promise<IteratorResult<T, void>> => {
    try {
      const result = await step;
      if (result.done) use[Symbol.dispose]();
      return result;
    } catch (error) {
      use[Symbol.dispose]();
      throw error;
    }
  };
  return {
    next: () => settle(source.next()),
    return: () => settle(source.return()),
    throw: (error) => settle(source.throw(error)),
    [Symbol.asyncIterator]() {
      return this;
    },
    async [Symbol.asyncDispose]() {
      await this.return();
    },
  };
}
