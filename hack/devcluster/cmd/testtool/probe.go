// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
)

// probeParallel is how many URLs are asked at a time.
const probeParallel = 16

func probe() *cobra.Command {
	o := options{method: http.MethodGet, requests: 1, parallel: 1, noKeepAlive: true}
	var certificate string
	cmd := &cobra.Command{
		Use: "probe URL...", Short: "Ask each of many URLs once, and print what came of each",
		Long: "Ask each URL once, on a connection of its own, and print a line \"URL KIND\" for each, in their order:\n" +
			"status and name of the server, or the error. A URL mtls://HOST:PORT/SERVERNAME/PATH is asked through TLS with\n" +
			"the certificate and key of --certificate, whatever the server presents.",
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var own []tls.Certificate
			if certificate != "" {
				pair, err := keyPair(certificate)
				if err != nil {
					return err
				}
				own = []tls.Certificate{pair}
			}
			kinds := make([]string, len(args))
			var g errgroup.Group
			g.SetLimit(probeParallel)
			for n, url := range args {
				g.Go(func() error {
					kinds[n] = o.probe(cmd.Context(), url, own)
					return nil
				})
			}
			_ = g.Wait()
			for n, url := range args {
				fmt.Fprintln(cmd.OutOrStdout(), url, kinds[n])
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&certificate, "certificate", "", "certificate and key for mtls:// URLs: PEM, in base64")
	cmd.Flags().DurationVar(&o.timeout, "timeout", 5*time.Second, "give up on a request after this time")
	return cmd
}

// keyPair decodes a certificate and its key.
func keyPair(encoded string) (tls.Certificate, error) {
	text, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("--certificate: %w", err)
	}
	return tls.X509KeyPair(text, text)
}

func (o options) probe(ctx context.Context, url string, own []tls.Certificate) string {
	rest, tunnel := strings.CutPrefix(url, "mtls://")
	if tunnel {
		url = "http://" + rest
	}
	c, err := o.client(url)
	if err != nil {
		return "error " + err.Error()
	}
	if tunnel {
		address, path, _ := strings.Cut(rest, "/")
		name, path, _ := strings.Cut(path, "/")
		c.url = "http://" + address + "/" + path
		c.http.Transport = &http.Transport{
			DisableKeepAlives: true,
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				d := tls.Dialer{Config: &tls.Config{
					Certificates: own, ServerName: name, MinVersion: tls.VersionTLS13, InsecureSkipVerify: true,
				}}
				return d.DialContext(ctx, network, address)
			},
		}
	}
	kind, _ := c.kind(ctx)
	return kind
}
