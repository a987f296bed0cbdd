import assert from 'node:assert/strict';
import type { NetworkInterfaceInfo } from 'node:os';
import { test } from 'node:test';
import { ownAddress } from '../../../src/target/network.ts';
import { findPlace, parseSsh } from '../../../src/target/place.ts';
import { sshArguments } from '../../../src/target/ssh.ts';

test('places by ssh, as scp names them or with a port', () => {
  const plain = { user: 'root', name: 'backup', port: 22, path: '/var/crash' };
  assert.deepEqual(parseSsh('ssh:backup'), plain);
  assert.deepEqual(parseSsh('ssh:me@backup:dumps'), { ...plain, user: 'me', path: 'dumps' });
  assert.deepEqual(parseSsh('ssh:[fd00::7]:/dumps'), { ...plain, name: 'fd00::7', path: '/dumps' });
  assert.deepEqual(parseSsh('ssh://backup'), plain);
  assert.deepEqual(parseSsh('ssh://me@backup:2222/dumps'), { user: 'me', name: 'backup', port: 2222, path: '/dumps' });
  assert.equal(parseSsh('nfs:backup:/dumps'), undefined);
  assert.equal(parseSsh('ssh:'), undefined);
});

test('ssh asks nobody, and knows the server by its name', () => {
  const login = { user: 'me', alias: '[backup]:2222', server: '10.0.2.9', port: 2222 };
  const line = sshArguments(login).join(' ');
  assert.match(line, /BatchMode=yes/);
  assert.match(line, /HostKeyAlias=\[backup\]:2222/);
  assert.match(line, /-p 2222 .*-l me 10\.0\.2\.9$/);
});

test('what is no place is refused, and a password is not shown', async () => {
  const wanted = { purpose: 'saving a crash dump to', sshKey: '/nonesuch' };
  await assert.rejects(findPlace('ftp://me:secret@host/x', wanted), (error: Error) => {
    assert.match(error.message, /ftp:\/\/me:\*\*\*@host\/x.*it is none of DIR, nfs:HOST:\/DIR/s);
    assert.doesNotMatch(error.message, /secret/);
    return true;
  });
  await assert.rejects(findPlace('http://127.0.0.1/x', wanted), /127\.0\.0\.1 is this machine itself/);
});

test('of several addresses the one that is next to the gateway', () => {
  const address = (family: 'IPv4' | 'IPv6', text: string, prefix: number) =>
    ({ family, address: text, cidr: `${text}/${prefix}`, internal: false }) as NetworkInterfaceInfo;
  const own = [
    address('IPv4', '192.168.1.5', 24),
    address('IPv4', '10.0.2.15', 24),
    address('IPv6', 'fe80::5', 64),
    address('IPv6', 'fd00::5', 64),
  ];
  assert.equal(ownAddress(own, '10.0.2.2')?.address, '10.0.2.15');
  assert.equal(ownAddress(own, '172.16.0.1')?.address, '192.168.1.5');
  assert.equal(ownAddress(own, 'fe80::1')?.address, 'fd00::5');
  assert.equal(ownAddress(own.slice(0, 3), 'fd00::1'), undefined);
});
