; tiny_guest.asm: a firmware image that is the whole guest.
;
; It adds one to the first byte of every page of a range, without end, and prints the number of each
; finished round on the first serial port, so that a restored guest shows whether it lost a page,
; kept an old one or stood still. It is a firmware and not a boot sector because it then needs no
; SeaBIOS and no disk: it counts within milliseconds and the machine has no device more than it must.
;
; Assemble with `nasm -f bin`. tiny_guest.ts writes the parameters below into the image, and knows
; their offsets: an image starts with them.

; Memory the guest uses besides the range: its stack and the round.
STACK_TOP       equ 0x7000
ROUND           equ 0x7000              ; dword in RAM, so a lost page 7 shows as a round that jumps

FIRST_MIB_16    equ 0x01000000          ; CMOS counts RAM from here, in units of 64 KiB
PAGE_BYTES      equ 4096
COM1            equ 0x3f8
COM1_LSR        equ COM1 + 5
LSR_THR_EMPTY   equ 0x20
LAPIC_LINT0     equ 0xfee00350
LINT0_EXTINT    equ 0x700               ; let the interrupt controllers through; masked at reset
TIMER_VECTOR    equ 0x20
TICKS_PER_MS    equ 1193                ; of the 1.193182 MHz interval timer
PAUSE_CHUNK_MS  equ 50                  ; the timer counts 16 bits: 54 ms at most

                org 0xf0000             ; where the machine shows the last 64 KiB of its firmware
                bits 16
image:
magic:          db "MFGUEST1"           ; 0x00  says that the file is this image
counter_start:  dd FIRST_MIB_16         ; 0x08  first page of the range, guest-physical
counter_end:    dd 0                    ; 0x0c  its end; 0: all RAM below 4 GiB
pause_ms:       dd 0                    ; 0x10  pause after each round; 0: none
noise_start:    dd 0                    ; 0x14  range filled once with bytes that do not shrink
noise_end:      dd 0                    ; 0x18
text_start:     dd 0                    ; 0x1c  range filled once with words, as text is
text_end:       dd 0                    ; 0x20
seed:           dd 0x9e3779b9           ; 0x24  of both fillings; never 0

; --- real mode, entered from the reset vector with CS based at 4 GiB - 64 KiB -------------------

real_mode:
                cli
                cld
                in al, 0x92             ; A20 is on in QEMU after a reset; do not depend on it
                or al, 2
                out 0x92, al
                o32 lgdt [cs:gdt_pointer - image]
                mov eax, cr0
                or al, 1
                mov cr0, eax
                jmp dword 0x08:flat_mode

                bits 32
flat_mode:
                mov ax, 0x10
                mov ds, ax
                mov es, ax
                mov ss, ax
                mov esp, STACK_TOP
                mov dword [ROUND], 0
                lidt [idt_pointer]
                call start_interrupts

                mov ebx, [counter_end]
                test ebx, ebx
                jnz .end_known
                mov al, 0x35            ; RAM above 16 MiB in units of 64 KiB, high byte
                out 0x70, al
                in al, 0x71
                mov bh, al
                mov al, 0x34            ; low byte
                out 0x70, al
                in al, 0x71
                mov bl, al
                movzx ebx, bx
                shl ebx, 16
                add ebx, FIRST_MIB_16
.end_known:
                call fill_noise
                call fill_text
                call clear_counters

; --- the loop: EBX holds the end of the range from here on --------------------------------------

round:
                mov edi, [counter_start]
.page:
                inc byte [edi]
                add edi, PAGE_BYTES
                cmp edi, ebx
                jb .page

                inc dword [ROUND]
                mov ebp, [ROUND]
                mov ecx, 8
.digit:
                rol ebp, 4
                mov eax, ebp
                and eax, 15
                mov al, [hex_digits + eax]
                call put_char
                loop .digit
                mov al, 10
                call put_char

                mov ecx, [pause_ms]
                call pause_ecx_ms
                jmp round

; Prints AL. Waits for the port, for a byte written to a full one would be lost.
put_char:
                mov ah, al
                mov dx, COM1_LSR
.wait:
                in al, dx
                test al, LSR_THR_EMPTY
                jz .wait
                mov al, ah
                mov dx, COM1
                out dx, al
                ret

; --- what fills memory at the start -------------------------------------------------------------

; Steps the generator in ESI (Marsaglia's xorshift: its low bits are as good as its high ones, so
; that no codec finds a pattern, which it would with a linear congruential one).
next_random:
                mov eax, esi
                shl eax, 13
                xor esi, eax
                mov eax, esi
                shr eax, 17
                xor esi, eax
                mov eax, esi
                shl eax, 5
                xor esi, eax
                mov eax, esi
                ret

fill_noise:
                mov esi, [seed]
                mov edi, [noise_start]
.dword:
                cmp edi, [noise_end]
                jae .done
                call next_random
                stosd
                jmp .dword
.done:
                ret

fill_text:
                mov esi, [seed]
                mov edi, [text_start]
.word:
                cmp edi, [text_end]
                jae .done
                call next_random
                shr eax, 27             ; one of 32 words: 5 bits of surprise in 32
                mov eax, [words + eax * 4]
                stosd
                jmp .word
.done:
                ret

; A filling may overlap the range, whose counters all have to start from the same value.
clear_counters:
                mov edi, [counter_start]
.page:
                mov byte [edi], 0
                add edi, PAGE_BYTES
                cmp edi, ebx
                jb .page
                ret

; --- the pause: a halted CPU, so that a paced guest leaves the host to its neighbours -----------

; Only the timer may interrupt, and only while the CPU is halted: interrupts are off elsewhere.
start_interrupts:
                mov al, 0x11            ; both controllers: start, edges, four words
                out 0x20, al
                out 0xa0, al
                mov al, TIMER_VECTOR
                out 0x21, al
                mov al, TIMER_VECTOR + 8
                out 0xa1, al
                mov al, 4               ; the second one hangs on line 2
                out 0x21, al
                mov al, 2
                out 0xa1, al
                mov al, 1               ; 8086 mode
                out 0x21, al
                out 0xa1, al
                mov al, 0xfe            ; line 0, the timer, and nothing else
                out 0x21, al
                mov al, 0xff
                out 0xa1, al
                mov dword [LAPIC_LINT0], LINT0_EXTINT
                ret

pause_ecx_ms:
                test ecx, ecx
                jz .done
                mov eax, PAUSE_CHUNK_MS
                cmp ecx, eax
                cmovb eax, ecx
                sub ecx, eax
                imul eax, eax, TICKS_PER_MS
                mov edx, eax
                mov al, 0x30            ; counter 0, both bytes, interrupt once at zero
                out 0x43, al
                mov al, dl
                out 0x40, al
                mov al, dh
                out 0x40, al
                sti                     ; takes effect after the next instruction: no wake-up is lost
                hlt
                cli
                jmp pause_ecx_ms
.done:
                ret

timer_interrupt:
                push eax
                mov al, 0x20
                out 0x20, al
                pop eax
                iret

; --- tables, read from ROM ----------------------------------------------------------------------

hex_digits:     db "0123456789abcdef"
words:          db "the pageis  a   bit of  RAM and one sentto  all by  hostlinkroot"
                db "namefilepathsizezerofreetimetaskmap userroadtreewordlinefromend "

                align 8
gdt:            dq 0
                dq 0x00cf9b000000ffff   ; code, flat; "accessed" is set, for ROM cannot be written
                dq 0x00cf93000000ffff   ; data, flat
gdt_pointer:    dw gdt_pointer - gdt - 1
                dd gdt

                align 8
idt:            times TIMER_VECTOR dq 0
                dw (timer_interrupt - image) & 0xffff, 0x08, 0x8e00, 0x000f
idt_pointer:    dw idt_pointer - idt - 1
                dd idt

; --- reset vector -------------------------------------------------------------------------------

                times 0xfff0 - ($ - $$) db 0
                bits 16
                jmp near real_mode
                times 0x10000 - ($ - $$) db 0 ; firmware comes in units of 64 KiB
