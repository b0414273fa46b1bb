// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"io"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	ext_procv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	"github.com/spf13/cobra"
	"google.golang.org/grpc"
)

// headerProcessed is set on requests and answers that were shown.
const headerProcessed = "X-Processed"

// processor marks the headers that it is shown.
type processor struct {
	ext_procv3.UnimplementedExternalProcessorServer
	mark string
}

func process() *cobra.Command {
	p := &processor{}
	var ports []int
	cmd := &cobra.Command{
		Use: "process", Short: "Service that processes requests and answers for proxies, by gRPC (envoy.service.ext_proc.v3)",
		Long: "Set the header " + headerProcessed + " of the requests and answers whose headers proxies show, by gRPC\n" +
			"(envoy.service.ext_proc.v3).",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			byGRPC := grpc.NewServer()
			ext_procv3.RegisterExternalProcessorServer(byGRPC, p)
			return listenAll(cmd.Context(), byGRPC, ports, "")
		},
	}
	cmd.Flags().IntSliceVar(&ports, "port", []int{8080}, "port to listen on (repeatable)")
	cmd.Flags().StringVar(&p.mark, "mark", "yes", "value of the header")
	return cmd
}

// Process implements envoy.service.ext_proc.v3.
func (p *processor) Process(s ext_procv3.ExternalProcessor_ProcessServer) error {
	for {
		q, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		marked := &ext_procv3.HeadersResponse{Response: &ext_procv3.CommonResponse{HeaderMutation: &ext_procv3.HeaderMutation{
			SetHeaders: []*corev3.HeaderValueOption{{
				Header:       &corev3.HeaderValue{Key: headerProcessed, RawValue: []byte(p.mark)},
				AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
			}},
		}}}
		answer := &ext_procv3.ProcessingResponse{}
		if q.GetResponseHeaders() != nil {
			answer.Response = &ext_procv3.ProcessingResponse_ResponseHeaders{ResponseHeaders: marked}
		} else {
			answer.Response = &ext_procv3.ProcessingResponse_RequestHeaders{RequestHeaders: marked}
		}
		if err := s.Send(answer); err != nil {
			return err
		}
	}
}
