// Package languagehost puts a program between the Pulumi engine and a language host that is too old for it: what the old host
// cannot do is answered here, everything else is handed to it.
package languagehost

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"github.com/pulumi/pulumi/sdk/v3/go/common/util/rpcutil"
)

// Message is a message as it came over the wire.
type Message []byte

// unread is the codec that leaves messages as they are.
type unread struct{}

func (unread) Name() string                       { return "proto" }
func (unread) Marshal(v any) ([]byte, error)      { return *v.(*Message), nil }
func (unread) Unmarshal(data []byte, v any) error { *v.(*Message) = bytes.Clone(data); return nil }

// Serve answers the engine until the engine ends this process. Each call has one request, and one response or several.
func Serve(answer func(stream grpc.ServerStream, method string, request Message) error) {
	runtime.LockOSThread() // the old hosts end with the thread that started them
	// The engine's way to end a host. A shell starts what it runs in the background with this signal ignored, and then the
	// engine would wait for five seconds.
	interrupted := make(chan os.Signal, 1)
	signal.Notify(interrupted, os.Interrupt)
	go func() {
		<-interrupted
		os.Exit(0)
	}()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err == nil {
		server := grpc.NewServer(grpc.ForceServerCodec(unread{}), grpc.MaxRecvMsgSize(1<<30),
			grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
				method, _ := grpc.MethodFromServerStream(stream)
				var request Message
				if err := stream.RecvMsg(&request); err != nil {
					return err
				}
				return answer(stream, method, request)
			}))
		fmt.Println(listener.Addr().(*net.TCPAddr).Port)
		err = server.Serve(listener)
	}
	fmt.Fprintf(os.Stderr, "%s: %v\n", filepath.Base(os.Args[0]), err)
	os.Exit(1)
}

// Start starts an old language host that ends with this process, and connects to it.
func Start(program string, arguments ...string) (*grpc.ClientConn, error) {
	type started struct {
		port int
		err  error
	}
	result := make(chan started)
	go func() {
		runtime.LockOSThread() // Pdeathsig is sent when the thread that started the process ends
		host := exec.Command(program, arguments...)
		host.Stderr = os.Stderr
		host.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		stdout, err := host.StdoutPipe()
		if err == nil {
			err = host.Start()
		}
		var port int
		if err == nil {
			_, err = fmt.Fscanln(stdout, &port)
		}
		result <- started{port, err}
		if err == nil {
			_, _ = io.Copy(os.Stdout, stdout)
			_ = host.Wait()
		}
	}()
	host := <-result
	if host.err != nil {
		return nil, fmt.Errorf("%s tells no port: %w", program, host.err)
	}
	return grpc.NewClient(fmt.Sprintf("127.0.0.1:%d", host.port), grpc.WithTransportCredentials(insecure.NewCredentials()),
		rpcutil.GrpcChannelOptions(), grpc.WithDefaultCallOptions(grpc.ForceCodec(unread{})))
}

// Forward hands a call to an old host, and its responses to the engine.
func Forward(stream grpc.ServerStream, method string, request Message, host *grpc.ClientConn) error {
	// Not a stream of requests: a refusal can be here before the request is sent, and sending to a stream would then fail with
	// EOF, while for a single request gRPC goes on to the refusal.
	forward, err := host.NewStream(stream.Context(), &grpc.StreamDesc{ServerStreams: true}, method)
	if err != nil {
		return err
	}
	if err := errors.Join(forward.SendMsg(&request), forward.CloseSend()); err != nil {
		return err
	}
	for {
		var response Message
		if err := forward.RecvMsg(&response); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := stream.SendMsg(&response); err != nil {
			return err
		}
	}
}

// Reply answers a call with what a function makes of its request.
func Reply[Request, Response proto.Message](
	stream grpc.ServerStream, wire Message, request Request, function func(context.Context, Request) (Response, error),
) error {
	if err := proto.Unmarshal(wire, request); err != nil {
		return err
	}
	response, err := function(stream.Context(), request)
	if err != nil {
		return err
	}
	marshalled, err := proto.Marshal(response)
	if err != nil {
		return err
	}
	return stream.SendMsg((*Message)(&marshalled))
}

// Beside is the path of a program in a folder beside this one.
func Beside(path ...string) (string, error) {
	self, err := os.Executable()
	return filepath.Join(append([]string{filepath.Dir(self)}, path...)...), err
}
