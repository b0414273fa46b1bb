// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package pki makes the keys, certificates and kubeconfigs of one dev cluster.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/fairway-mesh/fairway/hack/devcluster/internal/topology"
)

// lifetime of every certificate. A dev cluster that outlives it is made again with `down` and `up`.
const lifetime = 365 * 24 * time.Hour

// groupMasters is the group that Kubernetes allows everything.
const groupMasters = "system:masters"

// maker writes everything into one folder and remembers the first error, so that the list of certificates below reads
// as a list.
type maker struct {
	dir string
	now time.Time
	err error
}

// pair is a certificate with its key, PEM included.
type pair struct {
	cert            *x509.Certificate
	key             crypto.Signer
	certPEM, keyPEM []byte
}

// Ensure makes the PKI in dir unless it is there already. The folder is complete or absent: it is made beside its final
// place and renamed.
func Ensure(dir string) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	tmp := dir + ".tmp"
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	m := &maker{dir: tmp, now: time.Now()}
	m.all()
	if m.err != nil {
		return fmt.Errorf("making the cluster's certificates: %w", m.err)
	}
	return os.Rename(tmp, dir)
}

func (m *maker) all() {
	ca := m.issue("ca", nil, "fairway-dev-ca", "")
	front := m.issue("front-proxy-ca", nil, "fairway-dev-front-proxy-ca", "")
	m.issue("front-proxy-client", front, "front-proxy-client", "")
	// Loopback is named because the machine's own namespace reaches the API server through a forwarder there.
	m.issue("apiserver", ca, "kube-apiserver", "",
		topology.APIServiceIP, topology.Nodes[0].Address, "127.0.0.1", "localhost", "kubernetes", "kubernetes.default",
		"kubernetes.default.svc", "kubernetes.default.svc."+topology.ClusterDomain)
	m.issue("apiserver-kubelet-client", ca, "apiserver-kubelet-client", groupMasters)
	m.kubeconfig("admin", ca, m.issue("admin", ca, "fairway-dev-admin", groupMasters))
	for _, name := range []string{"kube-controller-manager", "kube-scheduler", "kube-proxy"} {
		m.kubeconfig(name, ca, m.issue(name, ca, "system:"+name, ""))
	}
	for _, n := range topology.Nodes {
		// kubelet serves with the certificate that it authenticates with, so name and address are in it.
		name := filepath.Join(n.Name, "kubelet")
		m.kubeconfig(name, ca, m.issue(name, ca, "system:node:"+n.Name, "system:nodes", n.Name, n.Address))
	}
	m.serviceAccountKey()
}

func (m *maker) fail(err error) bool {
	if m.err == nil {
		m.err = err
	}
	return m.err != nil
}

func (m *maker) write(name string, data []byte) {
	if m.err != nil {
		return
	}
	path := filepath.Join(m.dir, name)
	if !m.fail(os.MkdirAll(filepath.Dir(path), 0o700)) {
		m.fail(os.WriteFile(path, data, 0o600))
	}
}

// issue makes a key and a certificate for it, signed by ca, or by itself as a CA where ca is nil.
func (m *maker) issue(name string, ca *pair, commonName, organization string, sans ...string) *pair {
	if m.err != nil {
		return nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if m.fail(err) {
		return nil
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if m.fail(err) {
		return nil
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: commonName},
		NotBefore:             m.now.Add(-time.Hour),
		NotAfter:              m.now.Add(lifetime),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	if organization != "" {
		template.Subject.Organization = []string{organization}
	}
	for _, san := range sans {
		if ip := net.ParseIP(san); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, san)
		}
	}
	parent, signer := template, crypto.Signer(key)
	if ca == nil {
		template.IsCA, template.KeyUsage, template.ExtKeyUsage = true, x509.KeyUsageCertSign|x509.KeyUsageDigitalSignature,
			nil
	} else {
		parent, signer = ca.cert, ca.key
	}
	return m.sign(name, template, parent, key, signer)
}

func (m *maker) sign(
	name string, template, parent *x509.Certificate, key *ecdsa.PrivateKey, signer crypto.Signer,
) *pair {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if m.fail(err) {
		return nil
	}
	cert, err := x509.ParseCertificate(der)
	if m.fail(err) {
		return nil
	}
	p := &pair{
		cert: cert, key: key, keyPEM: m.keyPEM(key),
		certPEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
	}
	m.write(name+".crt", p.certPEM)
	m.write(name+".key", p.keyPEM)
	return p
}

func (m *maker) keyPEM(key *ecdsa.PrivateKey) []byte {
	der, err := x509.MarshalECPrivateKey(key)
	m.fail(err)
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
}

// serviceAccountKey signs the tokens of service accounts.
func (m *maker) serviceAccountKey() {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if m.fail(err) {
		return
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if m.fail(err) {
		return
	}
	m.write("sa.key", m.keyPEM(key))
	m.write("sa.pub", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}))
}

func (m *maker) kubeconfig(name string, ca, user *pair) {
	if m.err != nil {
		return
	}
	const dev = "fairway-dev"
	config := clientcmdapi.NewConfig()
	config.CurrentContext = dev
	config.Clusters[dev] = &clientcmdapi.Cluster{
		Server:                   "https://" + topology.APIAddress(),
		CertificateAuthorityData: ca.certPEM,
	}
	config.AuthInfos[dev] = &clientcmdapi.AuthInfo{ClientCertificateData: user.certPEM, ClientKeyData: user.keyPEM}
	config.Contexts[dev] = &clientcmdapi.Context{Cluster: dev, AuthInfo: dev}
	data, err := clientcmd.Write(*config)
	if !m.fail(err) {
		m.write(name+".conf", data)
	}
}

// WithServer returns the kubeconfig in path with the address of its API server replaced.
func WithServer(path, server string) ([]byte, error) {
	config, err := clientcmd.LoadFromFile(path)
	if err != nil {
		return nil, err
	}
	for _, c := range config.Clusters {
		c.Server = server
	}
	return clientcmd.Write(*config)
}
