// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"context"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the golden files")

const ptpList = `{"cniVersion":"1.0.0","name":"dev","plugins":[
 {"type":"ptp","mtu":1500,"ipam":{"type":"host-local","ranges":[[{"subnet":"10.244.1.0/24"}]]}},
 {"type":"portmap","capabilities":{"portMappings":true}}
]}`

const bridgeConf = `{"cniVersion": "0.4.0", "name": "mynet", "type": "bridge", "bridge": "cni0", "ipam": {"type": "host-local"}}`

func testInstaller(t *testing.T, files map[string]string) *Installer {
	dir := t.TempDir()
	i := &Installer{
		Source: filepath.Join(dir, "image", "fairway-cni"), BinDir: filepath.Join(dir, "bin"),
		ConfDir: filepath.Join(dir, "net.d"),
		Entry: NewEntry("/run/fairway/cni.sock", "/etc/cni/net.d/fairway.d/namespaces.json",
			[]string{"fairway-system", "kube-system"}),
	}
	require.NoError(t, os.Mkdir(filepath.Dir(i.Source), 0o755))
	require.NoError(t, os.WriteFile(i.Source, []byte("binary"), 0o644))
	require.NoError(t, os.Mkdir(i.BinDir, 0o755))
	require.NoError(t, os.Mkdir(i.ConfDir, 0o755))
	for name, content := range files {
		i.write(t, name, content)
	}
	return i
}

func (i *Installer) write(t *testing.T, name, content string) {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(i.ConfDir, name), []byte(content), 0o600))
}

func (i *Installer) files(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	require.NoError(t, filepath.WalkDir(i.ConfDir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		rel, _ := filepath.Rel(i.ConfDir, path)
		out[rel] = string(b)
		return err
	}))
	return out
}

func install(t *testing.T, i *Installer, changes bool) {
	t.Helper()
	changed, err := i.install()
	require.NoError(t, err)
	require.Equal(t, changes, changed)
}

func golden(t *testing.T, name, have string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, []byte(have), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err, "run the test with -update to write it")
	require.Equal(t, string(want), have)
}

func TestInstallIntoTheFirstList(t *testing.T) {
	before := map[string]string{"10-ptp.conflist": ptpList, "20-other.conflist": bridgeConf, "00-readme.txt": "hello"}
	i := testInstaller(t, before)
	install(t, i, true)
	install(t, i, false)
	after := i.files(t)
	golden(t, "ptp.conflist", after["10-ptp.conflist"])
	require.Equal(t, bridgeConf, after["20-other.conflist"])
	st, err := os.Stat(filepath.Join(i.ConfDir, "10-ptp.conflist"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), st.Mode().Perm(), "as before")
	st, err = os.Stat(filepath.Join(i.BinDir, "fairway-cni"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o755), st.Mode().Perm())

	require.NoError(t, i.Uninstall())
	require.Equal(t, before, i.files(t), "byte for byte")
	require.NoFileExists(t, filepath.Join(i.BinDir, "fairway-cni"))
	require.NoError(t, i.Uninstall(), "a second time")
}

func TestInstallConvertsASinglePlugin(t *testing.T) {
	before := map[string]string{"10-bridge.conf": bridgeConf}
	i := testInstaller(t, before)
	install(t, i, true)
	install(t, i, false)
	after := i.files(t)
	require.NotContains(t, after, "10-bridge.conf", "it would win over the list")
	golden(t, "bridge.conflist", after["10-bridge.conflist"])

	// The network plugin's installer writes its file again.
	i.write(t, "10-bridge.conf", bridgeConf)
	install(t, i, true)
	require.NotContains(t, i.files(t), "10-bridge.conf")

	require.NoError(t, i.Uninstall())
	require.Equal(t, before, i.files(t))
}

func TestUninstallKeepsWhatOthersChanged(t *testing.T) {
	i := testInstaller(t, map[string]string{"10-ptp.conflist": ptpList})
	install(t, i, true)
	changed := i.files(t)["10-ptp.conflist"]
	i.write(t, "10-ptp.conflist", changed+"\n\n")
	require.NoError(t, i.Uninstall())
	require.JSONEq(t, ptpList, i.files(t)["10-ptp.conflist"])
}

func TestANewEntryReplacesAnOldOne(t *testing.T) {
	before := map[string]string{"10-ptp.conflist": ptpList}
	i := testInstaller(t, before)
	install(t, i, true)
	i.Entry.TimeoutSeconds = 5
	install(t, i, true)
	l, err := parseList([]byte(i.files(t)["10-ptp.conflist"]))
	require.NoError(t, err)
	require.Equal(t, 1, l.count())
	require.NoError(t, i.Uninstall())
	require.Equal(t, before, i.files(t), "the original is still known")
}

func TestNothingToChainBehind(t *testing.T) {
	i := testInstaller(t, nil)
	_, err := i.install()
	require.ErrorIs(t, err, errNoNetwork)
	for name, bad := range map[string]string{"no JSON": "x", "no plugins": `{"name":"n","plugins":[]}`} {
		t.Run(name, func(t *testing.T) {
			i := testInstaller(t, map[string]string{"10-x.conflist": bad})
			_, err := i.install()
			require.Error(t, err)
			require.Equal(t, bad, i.files(t)["10-x.conflist"])
			require.NoError(t, i.Uninstall())
			require.Equal(t, bad, i.files(t)["10-x.conflist"])
		})
	}
}

func TestKeepRepairs(t *testing.T) {
	i := testInstaller(t, nil)
	ctx, cancel := context.WithCancel(context.Background())
	attempts, done := make(chan error, 64), make(chan error, 1)
	go func() {
		done <- i.Keep(ctx, logr.Discard(), func(err error) { attempts <- err })
	}()
	require.ErrorIs(t, <-attempts, errNoNetwork)
	hasEntry := func(name string) func() bool {
		return func() bool {
			b, err := os.ReadFile(filepath.Join(i.ConfDir, name))
			if err != nil {
				return false
			}
			l, err := parseList(b)
			return err == nil && l.count() == 1
		}
	}
	installed := func(name string) {
		t.Helper()
		for !hasEntry(name)() {
			<-attempts
		}
	}
	i.write(t, "10-ptp.conflist", ptpList)
	installed("10-ptp.conflist")
	i.write(t, "10-ptp.conflist", ptpList) // another installer
	installed("10-ptp.conflist")
	i.write(t, "05-new.conflist", ptpList) // a new first one
	installed("05-new.conflist")
	require.NoError(t, os.Remove(i.binary()))
	for {
		if _, err := os.Stat(i.binary()); err == nil {
			break
		}
		<-attempts
	}
	cancel()
	require.NoError(t, <-done)
	require.NoError(t, i.Uninstall())
	require.Equal(t, ptpList, i.files(t)["05-new.conflist"])
	require.JSONEq(t, ptpList, i.files(t)["10-ptp.conflist"])
}
