import assert from 'node:assert/strict';
import { test } from 'node:test';
import dns, { type Answer } from 'dns-packet';
import fc from 'fast-check';
import { follow } from './answer.ts';
import { type Query, type Read, readAnswer, readQuery, writeQuestion, writeReply } from './message.ts';
import { unframed } from './upstream.ts';

const RUNS = 3000;
const question = { type: 'A', name: 'Web.Example.com', class: 'IN' } as const;
const plain = dns.encode({ type: 'query', id: 7, flags: dns.RECURSION_DESIRED, questions: [question] });

function queryOf(read: Read): Query {
  assert.ok(read.kind === 'query', read.kind);
  return read.query;
}

function rcodeOf(bytes: Buffer): number {
  return bytes.readUInt16BE(2) & 15;
}

const records = (count: number): Answer[] =>
  Array.from({ length: count }, (_, i) => ({
    type: 'A',
    name: question.name,
    data: `192.0.2.${i}`,
    ttl: 60,
  }));

test('a question is read as it is meant, and answered in its own case', () => {
  const query = queryOf(readQuery(plain));
  assert.deepEqual([query.id, query.name, query.bytesMax, query.hasEdns], [7, 'web.example.com', 512, false]);
  const reply = dns.decode(writeReply(query, { rcode: 'ok', answers: records(2) }, 'udp'));
  assert.deepEqual([reply.id, reply.type, reply.questions?.[0]], [7, 'response', question]);
  assert.ok(reply.flag_ra && reply.flag_rd && !reply.flag_tc);
  assert.equal(reply.answers?.length, 2);
});

test('by datagram an answer is as long as the asker takes, within what every path takes', () => {
  for (const [size, expected] of [
    [0, 512],
    [100, 512],
    [1000, 1000],
    [65_535, 1232],
  ] as const) {
    const bytes = Buffer.concat([plain, Buffer.from([0, 0, 41, size >> 8, size & 255, 0, 0, 0, 0, 0, 0])]);
    bytes.writeUInt16BE(1, 10);
    const query = queryOf(readQuery(bytes));
    assert.deepEqual([query.bytesMax, query.hasEdns], [expected, true]);
    const cut = writeReply(query, { rcode: 'ok', answers: records(60) }, 'udp');
    assert.ok(cut.length <= expected && dns.decode(cut).flag_tc && dns.decode(cut).answers?.length === 0);
    assert.equal(
      dns.decode(writeReply(query, { rcode: 'ok', answers: records(60) }, 'tcp')).answers?.length,
      60,
    );
  }
});

test('what is no plain question is refused or not answered at all', () => {
  const changed = (offset: number, value: number): Buffer => {
    const bytes = Buffer.from(plain);
    bytes.writeUInt16BE(value, offset);
    return bytes;
  };
  const refused = (bytes: Buffer): number => {
    const read = readQuery(bytes);
    assert.ok(read.kind === 'refused', read.kind);
    return rcodeOf(read.reply);
  };
  assert.equal(refused(changed(2, 0x2800)), 4, 'an update');
  for (const offset of [6, 8]) assert.equal(refused(changed(offset, 1)), 1, 'records in a question');
  for (const count of [0, 2, 65_535]) assert.equal(refused(changed(4, count)), 1, `${count} questions`);
  assert.equal(refused(changed(10, 65_535)), 1);
  assert.equal(refused(changed(plain.length - 2, 3)), 4, 'another class');
  assert.equal(refused(plain.subarray(0, -3)), 1, 'cut off');
  for (const name of ['.', 'exämple.com', 'a b.com']) {
    assert.equal(refused(dns.encode({ type: 'query', questions: [{ type: 'A', name }] })), 1, name);
  }
  // A name that points at itself, and one that points ahead.
  for (const offset of [12, 200]) {
    const bytes = Buffer.concat([plain.subarray(0, 12), Buffer.from([0xc0, offset, 0, 1, 0, 1])]);
    assert.equal(refused(bytes), 1);
  }
  for (const noise of [Buffer.alloc(0), plain.subarray(0, 11), changed(2, 0x8180), Buffer.alloc(1025)]) {
    assert.equal(readQuery(noise).kind, 'noise');
  }
});

test('nothing a guest sends throws, or makes an answer that is longer than a few times itself', () => {
  const check = (bytes: Buffer) => {
    const read = readQuery(bytes);
    if (read.kind === 'refused') assert.equal(read.reply.length, 12);
    if (read.kind === 'query') {
      const reply = writeReply(read.query, { rcode: 'noSuchName', blocked: true }, 'udp');
      assert.ok(reply.length <= 512);
    }
  };
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 700 }), (bytes) => check(Buffer.from(bytes))),
    { numRuns: RUNS },
  );
  const edits = fc.array(fc.tuple(fc.nat(plain.length - 1), fc.nat(255)), { minLength: 1, maxLength: 6 });
  fc.assert(
    fc.property(edits, fc.uint8Array({ maxLength: 60 }), (changes, tail) => {
      const bytes = Buffer.concat([plain, tail]);
      for (const [offset, value] of changes) bytes[offset] = value;
      check(bytes);
    }),
    { numRuns: RUNS },
  );
});

test('nothing a server sends throws, and only what answers the question counts', () => {
  const asked = writeQuestion(99, question);
  assert.equal(readAnswer(asked, 99, question), undefined, 'a question is no answer');
  const answer = dns.encode({ type: 'response', id: 99, questions: [question], answers: records(3) });
  assert.equal(readAnswer(answer, 99, { ...question, name: 'web.EXAMPLE.com' })?.answers?.length, 3);
  assert.equal(readAnswer(answer, 98, question), undefined);
  assert.equal(readAnswer(answer, 99, { ...question, name: 'web.example.net' }), undefined);
  assert.equal(readAnswer(answer, 99, { ...question, type: 'TXT' }), undefined);
  const many = Buffer.from(answer);
  many.writeUInt16BE(65_535, 6);
  assert.equal(readAnswer(many, 99, question), undefined);
  const edits = fc.array(fc.tuple(fc.nat(answer.length - 1), fc.nat(255)), { minLength: 1, maxLength: 8 });
  fc.assert(
    fc.property(edits, fc.nat(answer.length), (changes, end) => {
      const bytes = Buffer.from(answer);
      for (const [offset, value] of changes) bytes[offset] = value;
      const packet = readAnswer(bytes.subarray(0, end), 99, question);
      if (packet !== undefined) {
        for (const record of follow(packet, question).records) assert.equal(record.type, 'A');
      }
    }),
    { numRuns: RUNS },
  );
});

test('aliases are followed to their end, a ring of them is not', () => {
  const alias = (name: string, data: string): Answer => ({ type: 'CNAME', name, data, ttl: 30, class: 'IN' });
  const record = (name: string, data: string, ttl: number): Answer => ({
    type: 'A',
    name,
    data,
    ttl,
    class: 'IN',
  });
  const packet = (...answers: Answer[]) => ({ questions: [question], answers });
  const chain = packet(
    record('end.net', '192.0.2.1', 20),
    alias('WEB.example.com', 'Mid.net'),
    alias('mid.net', 'end.net'),
    record('other.net', '192.0.2.2', 5),
  );
  const { aliases, records: found, ttlSec } = follow(chain, question);
  assert.deepEqual([aliases.length, found.map(({ data }) => data), ttlSec], [2, ['192.0.2.1'], 20]);
  const ring = packet(alias('web.example.com', 'a.net'), alias('a.net', 'web.example.com'));
  assert.deepEqual(follow(ring, question).records, []);
});

test('a message on a stream is whole or not there', () => {
  assert.equal(unframed(Buffer.from([0])), undefined);
  assert.equal(unframed(Buffer.from([0, 3, 1, 2])), undefined);
  assert.deepEqual(unframed(Buffer.from([0, 2, 1, 2, 9])), Buffer.from([1, 2]));
});
