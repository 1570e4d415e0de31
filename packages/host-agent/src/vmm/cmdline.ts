/** What every guest's kernel is told, whatever runs it. */
export const KERNEL_PARAMETERS: readonly string[] = [
  'console=ttyS0',
  'panic=-1',
  'quiet',
  'random.trust_cpu=on',
  '8250.nr_uarts=1',
  'ipv6.disable=1',
  'audit=0',
  // What nobody has set rules for is asked at every turn all the same.
  'lsm=landlock',
  'cryptomgr.notests',
  'raid=noautodetect',
  'rcupdate.rcu_expedited=1',
  // Accounting and a detector that nobody reads cost each switch between tasks, and each restore.
  'psi=0',
  'nowatchdog',
  'noautogroup',
  // Huge pages make a small write a large dirty one.
  'transparent_hugepage=madvise',
];
